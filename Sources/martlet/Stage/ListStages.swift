import ArgumentParser

/// `martlet stage list`: what packets of a shared run go through.
struct ListStages: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Show the stages of a shared run.",
    discussion: """
      Stages stand in the policy ([[stage]], `martlet policy --help`), the first one nearest to the wire. Each is a process \
      of its own: what it is, whether it runs, what goes through it, and how often it had to be started anew. What each has \
      counted is in `martlet stats` (stage_NAME_…).
      """)

  @OptionGroup var sharing: SharingOption

  func run() throws {
    try reporting {
      for message in try sharing.ask("stages") {
        func value(_ name: String) -> String { message[name] ?? "?" }
        let ways = [("receive", "received"), ("transmit", "sent")]
          .filter { message[$0.0] == "yes" }.map(\.1).joined(separator: " and ")
        let packets =
          message["packets"] == "all" ? "all packets \(ways)" : "packets that rules name it for"
        say(
          "\(value("place")) \(value("name")) (\(value("kind"))): \(value("state")), process \(value("pid")); \(packets); fails \(value("fails")); started anew \(value("restarts")) times, \(value("hangs")) of them for a hang"
        )
      }
    }
  }
}
