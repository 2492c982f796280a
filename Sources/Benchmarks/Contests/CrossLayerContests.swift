import Driver
import Glibc
import Loops
import Memory
import Supervisor

/// What crosses layers, each beside doing it at once: a clone beside a copy, aggregates beside single packets, and what is
/// done to a packet when it leaves beside doing it when it is made.
struct CrossLayerContests {
  let plan: BenchmarkPlan

  private static let sizes = [64, 1500, 65536]
  private static let aggregates: [(packets: Int, loop: PathLoopName)] = [
    (8, .hostTransmitAggregate8), (32, .hostTransmitAggregate32),
  ]
  /// Percent of the packets that never leave.
  private static let cancelled = [0, 25, 50]

  static var names: [String] {
    sizes.map { "s3.clone.\($0)" } + aggregates.map { "s3.aggregate.\($0.packets)" }
      + ["checksum", "seal"].flatMap { kind in cancelled.map { "s3.jit.\(kind).\($0)" } }
  }

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "s3.") else { return }
    for size in Self.sizes {
      try compare("s3.clone.\(size)", with: "a copy", take) { isOurs in
        var loop = try CloneLoop(byteCount: size, copies: !isOurs)
        return try timed(&loop, milliseconds: plan.window)
      }
    }
    for (packets, name) in Self.aggregates {
      try compare("s3.aggregate.\(packets)", with: "single packets", take) { isOurs in
        try (isOurs ? name : .hostTransmitSingle).visit(TimedLoop(milliseconds: plan.window))
      }
    }
    for percent in Self.cancelled {
      try compare("s3.jit.checksum.\(percent)", with: "at once", take) { isOurs in
        var loop = try LastMomentLoop(
          InternetChecksum(),
          request: Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 16),
          byteCount: 1500, cancelledOf4: percent / 25, isEager: !isOurs)
        return try timed(&loop, milliseconds: plan.window)
      }
    }
    // A program of its own, which is built for this only.
    guard access(Programs.sealLoop, X_OK) == 0 else { return }
    for percent in Self.cancelled {
      try compare("s3.jit.seal.\(percent)", with: "at once", take) { isOurs in
        try seal(percent: percent, isEager: !isOurs)
      }
    }
  }

  private func seal(percent: Int, isEager: Bool) throws -> Sample {
    let loop = try LineProcess(
      name: "seal loop", program: Programs.sealLoop,
      arguments: ["\(percent / 25)", isEager ? "1" : "0", "\(plan.window)"])
    let line = try loop.line(withinMilliseconds: plan.window + 5000)
    let numbers = line.split(separator: " ").compactMap { Double($0) }
    guard numbers.count == 2 else { throw SupervisorError.input("the seal loop says: \(line)") }
    return Sample([numbers[0]], cpuShare: numbers[1])
  }

  private func compare(
    _ name: String, with peer: String, _ take: ([BenchmarkRow]) -> Void,
    _ run: @escaping (_ isOurs: Bool) throws -> Sample
  ) throws {
    guard plan.wants(name) else { return }
    let side = { (isOurs: Bool) in
      {
        pinThread(toCore: 0)
        defer { unpinThread() }
        return try run(isOurs)
      }
    }
    let contest = Contest(
      [.init(name, "ns/packet", isRate: false)], ours: side(true), peer: (peer, side(false)))
    take(try contest.measure(rounds: plan.rounds))
  }
}
