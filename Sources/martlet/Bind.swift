import ArgumentParser

struct Bind: ParsableCommand {
}
