import Loops
import Supervisor

extension Sweep {
  /// What reading a packet's headers and looking up rules costs: rows `steering.rules.N` and `steering.networks.N`.
  static let steering: [(sweep: Sweep, rules: SteeringLoop.Rules)] = [
    (
      of(
        "steering.rules", "rules on addresses, ports and networks",
        """
        Rules that ask for the same bits are one hash table, of which there are six here, and single bytes of the headers \
        tell which of them can have a rule for the packet: that hardly depends on how many rules there are. What grows is \
        how much of the tables is not in the nearest cache.
        """), .mixed
    ),
    (
      of(
        "steering.networks", "networks of 25 sizes",
        """
        Networks of similar sizes are one hash table, so that there are four for 25 sizes, and the rules that fall together \
        in one place of it are compared one after the other: the more there are, the more of them do.
        """), .networks
    ),
  ]

  private static func of(_ prefix: String, _ axis: String, _ reason: String) -> Sweep {
    Sweep(
      prefix: prefix, axis: axis, sizes: [1, 8, 100, 1000, 10_000], isRate: false, reason: reason)
  }
}

/// Rules looked up for each packet, beside packets whose headers are only read.
struct SteeringContests {
  let plan: BenchmarkPlan

  static var names: [String] {
    Sweep.steering.flatMap { kind in kind.sweep.sizes.map(kind.sweep.name) }
  }

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    for (sweep, rules) in Sweep.steering {
      let contests = sweep.sizes.filter { plan.wants(sweep.name($0)) }.map { size in
        Contest(
          [.init(sweep.name(size), "ns/packet", isRate: false)],
          ours: { try sample(rules, size) }, peer: ("no rules", { try sample(rules, 0) }))
      }
      take(try Contest.measure(contests, rounds: plan.rounds))
    }
  }

  private func sample(_ rules: SteeringLoop.Rules, _ count: Int) throws -> Sample {
    pinThread(toCore: 0)
    defer { unpinThread() }
    var loop = try SteeringLoop(rules, count: count)
    let sample = try timed(&loop, milliseconds: plan.window)
    guard loop.hits > 0 else { throw SupervisorError.checkFailed("no packet hit a rule") }
    return sample
  }
}
