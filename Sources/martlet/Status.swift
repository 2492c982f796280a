import ArgumentParser

struct Status: ParsableCommand {
}
