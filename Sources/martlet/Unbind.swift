import ArgumentParser

struct Unbind: ParsableCommand {
}
