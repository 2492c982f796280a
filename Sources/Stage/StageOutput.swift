import Channel
import Glibc
import Memory

/// What a stage does besides saying what becomes of the packet before it: packets that it holds, packets that it makes, its
/// counters, and the time.
public struct StageOutput: ~Copyable {
  /// Nanoseconds on a clock that never goes back; the same throughout a burst.
  @inlinable public var now: UInt64 { clock }
  /// The stage's own counters.
  public var counters: StageCounters

  @usableFromInline var clock: UInt64 = 0

  // Invariant: `queueCount` initialised queues until deinit.
  @usableFromInline let queues: UnsafeMutablePointer<StageQueue>
  @usableFromInline let queueCount: Int
  // Invariant: mapped as long as there are packets.
  @usableFromInline let arena: UnsafeMutableRawPointer
  /// The queue of the packet that is being looked at.
  @usableFromInline var queue = 0
  @usableFromInline var arrivals: UInt64 = 0

  init(queues: Int, arena: UnsafeMutableRawPointer, counters: consuming StageCounters) {
    self.queues = .allocate(capacity: queues)
    for queue in 0..<queues { (self.queues + queue).initialize(to: StageQueue()) }
    queueCount = queues
    self.arena = arena
    self.counters = counters
  }

  deinit {
    queues.deinitialize(count: queueCount)
    queues.deallocate()
  }

  // MARK: Held packets

  /// Lets go of a packet that is held, in the order of these calls.
  /// - Parameters:
  ///   - token: which one.
  ///   - verdict: what becomes of it; `hold` leaves everything as it is.
  /// - Returns: false where no such packet is held.
  @inlinable @discardableResult
  public mutating func release(_ token: HeldPacket, _ verdict: Verdict = .pass) -> Bool {
    guard isHeld(token) else { return false }
    if verdict == .hold { return true }
    guard let packet = queues[Int(token.queue)].takeHeld(token.number) else { return false }
    counters[.holding] &-= 1
    finish(packet, queue: Int(token.queue), verdict)
    return true
  }

  /// Looks at a packet that is held, and changes it.
  /// - Returns: nil where no such packet is held.
  @inlinable
  public mutating func withHeld<R>(
    _ token: HeldPacket, _ body: (inout StagePacket) -> R
  ) -> R? {
    guard isHeld(token) else { return nil }
    let record = queues[Int(token.queue)].packets + Int(token.number)
    var packet = StagePacket(record.pointee.packet, in: arena, queue: token.queue)
    let result = body(&packet)
    record.pointee.packet = packet.place
    return result
  }

  @inlinable
  func isHeld(_ token: HeldPacket) -> Bool {
    Int(token.queue) < queueCount && queues[Int(token.queue)].isHeld(token.number)
  }

  @inlinable
  mutating func finish(_ packet: StagedPacket, queue: Int, _ verdict: Verdict) {
    switch verdict {
    case .pass:
      counters.count(.receivedPassed, packet.way)
      queues[queue].give(packet, packet.way)
    case .turn:
      counters.count(.receivedTurned, packet.way)
      queues[queue].give(packet, packet.way.opposite)
    case .drop:
      counters.count(.receivedDropped, packet.way)
      queues[queue].give(packet, .none)
    case .hold:
      counters.count(.receivedHeld, packet.way)
      counters[.holding] &+= 1
      arrivals &+= 1
      queues[queue].keep(packet, .held, arrival: arrivals)
    }
  }

  // MARK: Packets that the stage makes

  /// Makes a packet, which goes before the one that is being looked at.
  /// - Parameters:
  ///   - way: where it goes.
  ///   - byteCount: its length, from the Ethernet header on.
  ///   - body: writes it; its bytes are 0 before.
  /// - Returns: false where there is no memory for one, or not as much.
  @inlinable
  public mutating func make(
    _ way: StagedPacket.Way, byteCount: Int, _ body: (inout StagePacket) -> Void
  ) -> Bool {
    guard way != .none, let (spare, queue) = takeSpare(byteCount) else {
      counters[.noSpare] &+= 1
      return false
    }
    var packet = StagePacket(spare, in: arena, queue: UInt16(truncatingIfNeeded: queue))
    packet.place.way = way
    memset(packet.start, 0, byteCount)
    body(&packet)
    counters.count(.receivedMade, way)
    queues[queue].give(packet.place, way)
    return true
  }

  /// Makes a copy of a packet, metadata and mark included, which goes before it.
  /// - Parameters:
  ///   - packet: all of which the stage must see.
  ///   - way: where the copy goes.
  /// - Returns: false where there is no memory for one, or the packet is too long or not all there.
  @inlinable
  public mutating func clone(_ packet: borrowing StagePacket, _ way: StagedPacket.Way) -> Bool {
    if packet.isPartial {
      counters[.noSpare] &+= 1
      return false
    }
    let (source, byteCount, original) = (packet.start, packet.byteCount, packet.place)
    return make(way, byteCount: byteCount) { copy in
      memcpy(copy.start, source, byteCount)
      copy.place.metadata = original.metadata
      copy.place.isChecked = original.isChecked
      copy.place.mark = original.mark
    }
  }

  /// From the queue of the packet that is being looked at, or else from another.
  @inlinable
  mutating func takeSpare(_ byteCount: Int) -> (StagedPacket, queue: Int)? {
    guard byteCount >= 0 else { return nil }
    for step in 0..<queueCount {
      let queue = (queue &+ step) % queueCount
      guard let spare = queues[queue].takeSpare() else { continue }
      if let fitted = spare.fitted(to: byteCount) { return (fitted, queue) }
      queues[queue].keep(spare, .spare)
      return nil
    }
    return nil
  }
}

extension StagedPacket {
  /// The same memory with a head of so many bytes: where it began, or before that where there is no room behind.
  @usableFromInline
  func fitted(to byteCount: Int) -> StagedPacket? {
    let start = position - UInt64(roomBefore)
    let bytes = Int(roomBefore) + Int(self.byteCount) + Int(roomBehind)
    guard byteCount <= bytes else { return nil }
    var result = self
    let before = min(Int(roomBefore), bytes - byteCount)
    result.position = start + UInt64(before)
    result.roomBefore = UInt32(before)
    result.byteCount = UInt32(byteCount)
    result.roomBehind = UInt32(bytes - byteCount - before)
    result.metadata = Offload()
    result.unseenBytes = 0
    result.isChecked = false
    result.mark = 0
    return result
  }
}
