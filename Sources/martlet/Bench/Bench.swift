import ArgumentParser

/// `martlet bench`: measurements that anyone can repeat.
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure one thing, with its counterpart in the same run.",
    subcommands: [Instructions.self, EarlyDelivery.self])
}
