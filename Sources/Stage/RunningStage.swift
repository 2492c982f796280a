import Channel
import Memory

/// A stage with the packets that it has, compiled for it. What comes from the host is checked here, before the stage sees
/// it. One thread.
public struct RunningStage<Stage: PacketStage & ~Copyable>: ~Copyable {
  @usableFromInline var stage: Stage
  @usableFromInline var output: StageOutput
  @usableFromInline let arenaBytes: UInt64

  /// - Parameters:
  ///   - arena: where the host's packets lie; outlives the stage.
  ///   - byteCount: of the arena.
  @usableFromInline
  init(
    _ stage: consuming Stage, queues: Int, arena: UnsafeMutableRawPointer, byteCount: Int
  ) throws(StageError) {
    output = StageOutput(
      queues: queues, arena: arena, counters: try StageCounters(stage.counterNames))
    self.stage = stage
    arenaBytes = UInt64(byteCount)
  }

  /// Packets of a queue have come.
  /// - Parameter burst: of ``StageQueue/burst`` packets at most; not looked at afterwards.
  /// - Throws: what the host has given that is no packet.
  @inlinable @inline(never)
  mutating func take(_ burst: borrowing Burst, queue: Int) throws(StageError) {
    output.queue = queue
    var first = 0
    while first < burst.count {
      let packet = try check(burst, first, queue)
      first &+= StagedPacket.slots
      if packet.way == .none {
        output.queues[queue].keep(packet, .spare)
        continue
      }
      output.counters.count(.received, packet.way)
      var seen = StagePacket(packet, in: output.arena, queue: UInt16(truncatingIfNeeded: queue))
      let verdict = stage.process(&seen, &output)
      output.finish(seen.place, queue: queue, verdict)
    }
  }

  /// Its room must lie in the arena, and its number must not be one that the stage has.
  @inlinable
  func check(
    _ burst: borrowing Burst, _ first: Int, _ queue: Int
  ) throws(StageError) -> StagedPacket {
    guard burst.count &- first >= StagedPacket.slots, let packet = StagedPacket(burst.start + first)
    else { throw StageError.noPacket }
    // None of these sums can overflow: positions have 43 bits.
    let end = packet.position &+ UInt64(packet.byteCount) &+ UInt64(packet.roomBehind)
    guard packet.position >= UInt64(packet.roomBefore), end <= arenaBytes,
      Int(packet.number) < StagedPacket.maximumPackets
    else { throw StageError.outsideArena }
    guard output.queues[queue].packets[Int(packet.number)].kind == .absent else {
      throw StageError.twice
    }
    return packet
  }

  /// Calls the stage where its deadline has come.
  /// - Returns: whether it had.
  @inlinable
  mutating func service() -> Bool {
    if stage.nextDeadline > output.now { return false }
    output.queue = 0
    stage.service(&output)
    return true
  }

  /// The stage ends: all that it holds goes on, in the order in which it came.
  @usableFromInline
  mutating func releaseAll() {
    var held: [(arrival: UInt64, token: HeldPacket)] = []
    for queue in 0..<output.queueCount {
      for number in 0..<StagedPacket.maximumPackets {
        let record = output.queues[queue].packets[number]
        if record.kind != .held { continue }
        held.append((record.arrival, HeldPacket(queue: UInt16(queue), number: UInt16(number))))
      }
    }
    for packet in held.sorted(by: { $0.arrival < $1.arrival }) { output.release(packet.token) }
    for queue in 0..<output.queueCount {
      while let spare = output.queues[queue].takeSpare() {
        output.queues[queue].give(spare, .none)
      }
    }
  }
}

extension StageError {
  @usableFromInline static var noPacket: StageError {
    StageError("the driver host broke the channel's rules: what it gave is no packet")
  }
  @usableFromInline static var outsideArena: StageError {
    StageError("the driver host broke the channel's rules: a packet lies outside its memory")
  }
  @usableFromInline static var twice: StageError {
    StageError("the driver host broke the channel's rules: it gave the same packet twice")
  }
}
