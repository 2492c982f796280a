import Channel
import Glibc
import Supervisor

/// What confinement costs in latency: pings through the whole product, each answered by lwIP in a process of its own, with
/// the driver host confined and, as its peer, not. Once on a quiet machine, once with a program that never rests on the core
/// that the queue thread does not have.
struct RealTimeContest {
  let plan: BenchmarkPlan

  private static let percentiles: [(name: String, value: Double)] = [
    ("p50", 50), ("p99", 99), ("p999", 99.9), ("max", 100),
  ]
  /// Pings a second: far below what makes a queue.
  private static let rate = 2000.0

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "realtime.") else { return }
    let core = Cores().allowed.last
    let confined = Chain(
      try EchoChain.start(mode: .adaptive, isConfined: true, core: core, index: 0))
    let free = Chain(
      try EchoChain.start(mode: .adaptive, isConfined: false, core: core, index: 1))
    defer {
      confined.stop()
      free.stop()
    }
    try take(measure("realtime.quiet", confined, free))
    if let other = Cores().allowed.first, other != core {
      let taskset = try Tool("taskset", package: "util-linux")
      let hog = try taskset.start(["-c", "\(other)", "/bin/sh", "-c", "while :; do :; done"])
      try take(measure("realtime.hog", confined, free))
      _ = hog.process.identifier
    }
  }

  private func measure(_ name: String, _ ours: Chain, _ peer: Chain) throws -> [BenchmarkRow] {
    let wanted = Self.percentiles.map { "\(name).\($0.name)" }
    guard wanted.contains(where: { plan.wants($0) }) else { return [] }
    return try Contest(
      wanted.map { .init($0, "us", isRate: false) },
      ours: {
        ours.sample(Self.rate, milliseconds: 4 * plan.window, Self.percentiles.map(\.value))
      },
      peer: (
        "the same host, not confined",
        { peer.sample(Self.rate, milliseconds: 4 * plan.window, Self.percentiles.map(\.value)) }
      )
    ).measure(rounds: plan.rounds).filter { plan.wants($0.name) }
  }

  /// A chain that two closures have in common.
  private final class Chain {
    private var chain: EchoChain

    init(_ chain: consuming EchoChain) { self.chain = chain }

    /// - Returns: a percentile each, in microseconds. A hog is meant to disturb: no sample is taken again for that.
    func sample(_ rate: Double, milliseconds: Int, _ percentiles: [Double]) -> Sample {
      let outcome = chain.sender.send(rate: rate, milliseconds: milliseconds)
      return Sample(
        percentiles.map { Double(outcome.latencies.valueAtPercentile($0)) / 1000 }, cpuShare: 1)
    }

    func stop() { try? chain.stop() }
  }
}
