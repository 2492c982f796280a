/// Commands through shared memory beside the same commands over a UNIX socket, between two processes on two cores.
struct CommandContests {
  let plan: BenchmarkPlan

  static let names = [
    "commands.roundtrip.", "commands.roundtrip.polled.", "commands.rate", "commands.rate.polled",
  ]

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "commands.") else { return }
    let pair = try CommandPair()
    let window = plan.window
    var contests: [Contest] = []
    for polls in [false, true] {
      let peer = polls ? "UNIX socket, polled" : "UNIX socket"
      let suffix = polls ? "polled." : ""
      if plan.wants(anyOf: "commands.roundtrip.\(suffix)") {
        contests.append(
          Contest(
            ["p50", "p99", "p999"].map {
              .init("commands.roundtrip.\(suffix)\($0)", "ns", isRate: false)
            },
            ours: { try pair.roundTrips(milliseconds: window) },
            peer: (peer, { try pair.socketRoundTrips(polls: polls, milliseconds: window) })))
      }
      let name = polls ? "commands.rate.polled" : "commands.rate"
      if plan.wants(name) {
        contests.append(
          Contest(
            [.init(name, "M/s", isRate: true)],
            ours: { try pair.rate(milliseconds: window) },
            peer: (peer, { try pair.socketRate(polls: polls, milliseconds: window) })))
      }
    }
    take(try Contest.measure(contests, rounds: plan.rounds).filter { plan.wants($0.name) })
  }
}
