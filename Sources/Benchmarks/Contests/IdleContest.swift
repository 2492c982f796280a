import Channel

/// What each mode of the driver host costs and gives at a part of its full rate: CPU of its queue thread, latency of
/// pings through the whole product. The full rate is that of the same chain in poll mode, measured first.
public struct IdleContest {
  let plan: BenchmarkPlan

  public init(plan: BenchmarkPlan) { self.plan = plan }

  public static let modes: [PollMode] = [.adaptive, .poll, .interrupt]
  /// In percent of the full rate.
  public static let loads = [0, 1, 10, 50]
  private static let measures: [(name: String, unit: String)] = [
    ("cpu", "% of a core"), ("p50", "us"), ("p99", "us"), ("p999", "us"), ("lost", "%"),
  ]

  /// One mode at one load: a value for each of `measures`, and the share of a core that the thread had when it wanted it.
  private struct Cell {
    var samples: [Sample] = []
    var repeated = 0
  }

  public func run(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "idle.") || plan.wants(anyOf: "latency.interrupt") else { return }
    let full = try measureFullRate()
    take([
      BenchmarkRow(
        name: "idle.full", unit: "pings/s", isRate: true, ours: full, rounds: plan.rounds,
        repeated: 0, disturbed: 0)
    ])
    var cells = [[Cell]](
      repeating: Array(repeating: Cell(), count: Self.loads.count), count: Self.modes.count)
    for _ in 0..<plan.rounds {
      for mode in Self.modes.indices {
        var chain = try EchoChain.start(mode: Self.modes[mode])
        for load in Self.loads.indices {
          let rate = full.median * Double(Self.loads[load]) / 100
          try add(to: &cells[mode][load], chain, rate: rate)
        }
        try chain.stop()
      }
    }
    for mode in Self.modes.indices {
      for load in Self.loads.indices {
        take(
          rows("idle.\(Self.modes[mode]).\(Self.loads[load])", cells[mode][load], Self.loads[load])
            .filter { plan.wants($0.name) })
        if Self.modes[mode] == .interrupt, Self.loads[load] == 10 {
          take(
            rows("latency.interrupt", cells[mode][load], 10)
              .filter { plan.wants($0.name) && $0.unit == "us" })
        }
      }
    }
  }

  private func measureFullRate() throws -> Spread {
    var chain = try EchoChain.start(mode: .poll)
    let rates = (0..<plan.rounds).map { _ in
      let outcome = chain.sender.flood(outstanding: 64, milliseconds: 2 * plan.window)
      return Double(outcome.answered) * 1e9 / Double(outcome.nanoseconds)
    }
    try chain.stop()
    return Spread(rates)
  }

  private func add(to cell: inout Cell, _ chain: borrowing EchoChain, rate: Double) throws {
    var best = try sample(chain, rate: rate)
    if best.cpuShare < Contest.leastShare {
      cell.repeated += 1
      let next = try sample(chain, rate: rate)
      if next.cpuShare > best.cpuShare { best = next }
    }
    cell.samples.append(best)
  }

  private func sample(_ chain: borrowing EchoChain, rate: Double) throws -> Sample {
    // What the load before has left behind is over by then.
    pause(milliseconds: 50)
    let before = try chain.queueTime()
    let outcome = chain.sender.send(rate: rate, milliseconds: 2 * plan.window)
    let after = try chain.queueTime()
    let (ran, waited) = (Double(after.ran - before.ran), Double(after.waited - before.waited))
    let lost =
      outcome.sent == 0 ? 0 : 100 * Double(outcome.sent - outcome.answered) / Double(outcome.sent)
    return Sample(
      [100 * ran / Double(outcome.nanoseconds)]
        + [50, 99, 99.9].map { Double(outcome.latencies.valueAtPercentile($0)) / 1000 } + [lost],
      cpuShare: 1 - waited / max(ran + waited, Double(outcome.nanoseconds) / 100))
  }

  private func rows(_ name: String, _ cell: Cell, _ load: Int) -> [BenchmarkRow] {
    // Without packets there is no latency, and a sample of some hundred has no 99.9th percentile.
    let left: Set<String> =
      load == 0 ? ["p50", "p99", "p999", "lost"] : load < 10 ? ["p999"] : []
    return Self.measures.indices.filter { !left.contains(Self.measures[$0].name) }.map { index in
      BenchmarkRow(
        name: "\(name).\(Self.measures[index].name)", unit: Self.measures[index].unit,
        isRate: false, ours: Spread(cell.samples.map { $0.values[index] }),
        rounds: plan.rounds, repeated: cell.repeated,
        disturbed: cell.samples.count { $0.cpuShare < Contest.leastShare })
    }
  }
}
