import Memory

/// A queue pair whose packets are changed when they go on its ring: not before there is room for them, and never if they
/// are not put there. All else is the pair's own.
public struct TransformingQueuePair<
  Pair: NetworkQueuePair & ~Copyable, Transform: TransmitTransform & ~Copyable
>: NetworkQueuePair, ~Copyable {
  @usableFromInline var pair: Pair
  /// What is done to each packet. Its counters can be read; whoever replaces it does so between two calls.
  public var transform: Transform
  @usableFromInline let arena: DMARange
  @usableFromInline let isNeeded: Bool
  /// Packets that have been changed and go on the ring in this call.
  @usableFromInline var staged = Burst(capacity: 256)
  /// Tags of packets that may not leave, until they are completed.
  @usableFromInline var refused = Burst(capacity: 64)
  @usableFromInline var refusals: UInt64 = 0

  /// - Parameters:
  ///   - pair: puts packets on its ring.
  ///   - transform: is done to each of them before.
  ///   - arena: where packets lie; as the driver's.
  ///   - isNeeded: false where packets go to the pair as they are.
  @inlinable
  public init(
    _ pair: consuming Pair, _ transform: consuming Transform, arena: DMARange, isNeeded: Bool = true
  ) {
    self.pair = pair
    self.transform = transform
    self.arena = arena
    self.isNeeded = isNeeded
  }

  /// As the pair's; each packet that goes on its ring has been changed once, and no other.
  @inlinable
  public mutating func transmit(_ burst: inout Burst) throws(DriverError) {
    if !isNeeded { return try pair.transmit(&burst) }
    var at = 0
    var places = 0
    while at < burst.count {
      guard let last = burst.endOfPacket(from: at), refused.room > 0 else { break }
      if staged.room <= last &- at {
        try sendStaged()
        places = 0
      }
      let before = staged.count
      var admission = TransmitAdmission.refused
      if staged.room > last &- at {
        let request = stage(burst, from: at, through: last)
        let end = staged.count &- 1
        if end >= before {
          admission = pair.admission(of: staged, from: before, through: end, behind: &places)
        }
        if admission == .admitted, !change(from: before, through: end, request) {
          admission = .refused
        }
      }
      if admission != .admitted { staged.truncate(to: before) }
      if admission == .noRoom { break }
      if admission == .refused {
        refused.append(Descriptor(segment: 0, tag: burst[at].tag))
        refusals &+= 1
      }
      at = last &+ 1
    }
    try sendStaged()
    burst.removeFirst(at)
  }

  /// Copies a packet's slots, with what will be left to the device once it has been changed.
  /// - Returns: what the sender asks for.
  @inlinable
  mutating func stage(_ burst: borrowing Burst, from first: Int, through last: Int) -> Offload {
    var request = Offload()
    var start = first
    if let asked = Offload(burst[first]) {
      request = asked
      start &+= 1
      let remainder = transform.remainder(of: asked)
      if remainder.needsChecksum || remainder.segmentation != .none {
        staged.append(remainder.slot)
      }
    }
    let before = staged.count
    var index = start
    while index <= last {
      staged.append(burst[index])
      index &+= 1
    }
    if before < staged.count { staged[before].tag = burst[first].tag }
    return request
  }

  @inlinable
  mutating func change(from first: Int, through last: Int, _ request: Offload) -> Bool {
    let start = staged[first].flags.contains(.offload) ? first &+ 1 : first
    guard
      let packet = TransmitPacket(staged, from: start, through: last, request: request, in: arena)
    else { return false }
    return transform.transform(packet)
  }

  @inlinable
  mutating func sendStaged() throws(DriverError) {
    if staged.isEmpty { return }
    try pair.transmit(&staged)
    precondition(staged.isEmpty, "the driver takes fewer packets than it has admitted")
  }

  @inlinable
  public mutating func completeTransmit(into burst: inout Burst) throws(DriverError) {
    refused.move(into: &burst)
    try pair.completeTransmit(into: &burst)
  }

  @inlinable
  public mutating func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission {
    pair.admission(of: burst, from: first, through: last, behind: &places)
  }

  @inlinable
  public mutating func postReceive(_ burst: inout Burst) throws(DriverError) {
    try pair.postReceive(&burst)
  }

  @inlinable
  public mutating func receive(into burst: inout Burst) throws(DriverError) {
    try pair.receive(into: &burst)
  }

  @inlinable public var receiveRoom: Int { pair.receiveRoom }

  @inlinable
  public mutating func armInterrupts(transmit: Bool) -> Bool {
    pair.armInterrupts(transmit: transmit) && refused.isEmpty
  }

  @inlinable
  public mutating func disarmInterrupts() { pair.disarmInterrupts() }

  @inlinable
  public mutating func takeBack(segments: inout Burst, packets: inout Burst) {
    refused.move(into: &packets)
    pair.takeBack(segments: &segments, packets: &packets)
  }

  @inlinable public var statistics: QueueStatistics {
    var sum = pair.statistics
    sum.sendErrors &+= refusals
    return sum
  }
}
