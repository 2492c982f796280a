import Crypto
import Driver
import Loops
import Memory
import PacketSeal

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
        try (isOurs ? name : .hostTransmitSingle).visit(Timed(milliseconds: plan.window))
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
    let key = SymmetricKey(size: .bits256)
    for percent in Self.cancelled {
      try compare("s3.jit.seal.\(percent)", with: "at once", take) { isOurs in
        var loop = try LastMomentLoop(
          PacketSeal(key: key, clearBytes: 14), request: Offload(), byteCount: 1500,
          cancelledOf4: percent / 25, isEager: !isOurs)
        return try timed(&loop, milliseconds: plan.window)
      }
    }
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

  private struct Timed: PathLoopVisitor {
    let milliseconds: Int

    func visit<L: PathLoop & ~Copyable>(_ loop: consuming L) throws -> Sample {
      try timed(&loop, milliseconds: milliseconds)
    }
  }
}
