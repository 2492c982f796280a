import ArgumentParser
import Supervisor

/// What `martlet grow` and `martlet shrink` take.
struct MoveOptions: ParsableArguments {
  @OptionGroup var sharing: SharingOption
  @Argument(help: "As `martlet memory` shows it.") var id: UInt32
  @Argument(help: "MiB, 1 to 65536.") var mebibytes: UInt64

  func validate() throws {
    guard (1...65536).contains(mebibytes) else {
      throw ValidationError("\(mebibytes) MiB cannot be moved: say 1 to 65536")
    }
  }

  func ask(_ word: String) throws {
    let answer = try sharing.ask("\(word) id=\(id) bytes=\(mebibytes << 20)")
    if let bytes: UInt64 = answer.last?.number("now") {
      say("instance \(id) has \(bytes >> 20) MiB")
    }
  }
}

/// `martlet grow`: gives an instance more memory.
struct Grow: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Give an instance of a shared run more memory, while traffic runs.",
    discussion: """
      Up to its maximum. Where the policy's budget is used up, instances that have been idle for a while are asked for what \
      they have above their guarantee. Exit code: 1 when there is none to be had.
      """)
  @OptionGroup var options: MoveOptions
  func run() throws { try reporting { try options.ask("grow") } }
}

/// `martlet shrink`: takes memory back.
struct Shrink: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Take memory back from an instance of a shared run, while traffic runs.",
    discussion: """
      In whole extents from the end, and never below its guarantee. Exit code: 1 when the instance does not let go of it.
      """)
  @OptionGroup var options: MoveOptions
  func run() throws { try reporting { try options.ask("shrink") } }
}
