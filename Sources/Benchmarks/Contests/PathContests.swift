import Loops
import Supervisor

/// The whole way of a received packet with something, beside the same without it: rules, a stage, statistics of time, a
/// capture whose filter takes nothing. In one thread, on a device that is only memory.
struct PathContests {
  let plan: BenchmarkPlan

  /// `each`: packets whose flows are not known again, so that all are looked up.
  private static let ways: [(name: String, loop: PathLoopName, without: PathLoopName)] = [
    ("steering.receive.8", .sharedReceiveRules, .sharedReceive),
    ("steering.receive.8.each", .sharedReceiveEachRules, .sharedReceiveEach),
    ("steering.receive.flows", .sharedReceive, .sharedReceiveEach),
    ("steering.receive.stage", .sharedReceiveStaged, .sharedReceive),
    ("eyes.times.host", .hostReceiveTimed, .hostReceive),
    ("eyes.times.shared", .sharedReceiveTimed, .sharedReceive),
    ("eyes.capture.host", .hostReceiveFiltered, .hostReceive),
    ("eyes.capture.shared", .sharedReceiveFiltered, .sharedReceive),
  ]

  static var names: [String] { ways.map(\.name) }

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    let contests = Self.ways.filter { plan.wants($0.name) }.map { name, loop, without in
      Contest(
        [.init(name, "M/s", isRate: true)], ours: { try rate(loop) },
        peer: ("without", { try rate(without) }))
    }
    take(try Contest.measure(contests, rounds: plan.rounds))
  }

  private func rate(_ loop: PathLoopName) throws -> Sample {
    pinThread(toCore: 0)
    defer { unpinThread() }
    let sample = try loop.visit(TimedLoop(milliseconds: plan.window))
    return Sample([1000 / sample.values[0]], cpuShare: sample.cpuShare)
  }
}
