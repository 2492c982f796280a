import Memory

/// A change to a packet's bytes that is made at the last moment: when the packet goes on the device's ring, and never for
/// one that is dropped or taken back before. A ``TransformingQueuePair`` is compiled for its transform: there is no closure
/// and no existential on the way.
///
/// A transform changes bytes in place. It makes no packet longer, shorter or of other pieces: where it needs space, such as
/// for an authentication tag, the sender has left it.
public protocol TransmitTransform: ~Copyable, SendableMetatype {
  /// What is still left to the device, of what a packet asks for, once the transform has run. Says it without looking at
  /// the packet; the transform may not have run yet, or never run.
  func remainder(of request: Offload) -> Offload

  /// Changes the packet, once.
  /// - Returns: whether the packet may leave. One that may not is counted as a send error, and completed without being
  ///   sent.
  mutating func transform(_ packet: borrowing TransmitPacket) -> Bool
}

extension TransmitTransform where Self: ~Copyable {
  /// All of it.
  @inlinable public func remainder(of request: Offload) -> Offload { request }
}

/// A packet that is about to go on the ring: its bytes, where they lie.
public struct TransmitPacket: ~Copyable {
  // Invariant: `slots` points at `pieceCount` descriptors that stay where they are while this value lives; each lies inside
  // `arena`, which was checked when it was made.
  @usableFromInline let slots: UnsafePointer<Descriptor>
  @usableFromInline let arena: DMARange
  /// Pieces, at least 1.
  public let pieceCount: Int
  /// Bytes of all of them.
  public let byteCount: Int
  /// What the sender has asked for.
  public let request: Offload

  /// - Parameters:
  ///   - burst: has the packet's pieces, and stays as it is while this value lives.
  ///   - first: the first piece's slot, behind metadata.
  ///   - last: the last one's.
  ///   - request: what the sender has asked for.
  ///   - arena: where the pieces lie.
  /// - Returns: nil where a piece lies outside the arena.
  @inlinable
  public init?(
    _ burst: borrowing Burst, from first: Int, through last: Int, request: Offload = Offload(),
    in arena: DMARange
  ) {
    precondition(first <= last)
    var bytes = 0
    for index in first...last {
      let slot = burst[index]
      if !arena.contains(slot) { return nil }
      bytes &+= Int(slot.length)
    }
    slots = burst.start + first
    self.arena = arena
    pieceCount = last &- first &+ 1
    byteCount = bytes
    self.request = request
  }

  /// The bytes of a piece; one that there is not traps. A sender in another process may still change them.
  @inlinable
  public func piece(_ index: Int) -> DMARange {
    precondition(index >= 0 && index < pieceCount)
    let slot = slots[index]
    return arena.dropFirst(Int(truncatingIfNeeded: slot.position)).first(Int(slot.length))
  }

  /// Writes one byte; a position outside the packet traps.
  @inlinable
  public func store8(_ value: UInt8, at position: Int) {
    precondition(position >= 0 && position < byteCount)
    var left = position
    var index = 0
    while left >= Int(slots[index].length) {
      left &-= Int(slots[index].length)
      index &+= 1
    }
    piece(index).store8(value, at: left)
  }
}

/// Two transforms, one after the other: the second sees what the first has made.
public struct TransformSequence<
  First: TransmitTransform & ~Copyable, Second: TransmitTransform & ~Copyable
>: TransmitTransform, ~Copyable {
  /// Runs first.
  public var first: First
  /// Runs where the first lets the packet go on.
  public var second: Second

  /// - Parameters:
  ///   - first: runs first.
  ///   - second: runs after it.
  @inlinable
  public init(_ first: consuming First, then second: consuming Second) {
    self.first = first
    self.second = second
  }

  @inlinable
  public func remainder(of request: Offload) -> Offload {
    second.remainder(of: first.remainder(of: request))
  }

  @inlinable
  public mutating func transform(_ packet: borrowing TransmitPacket) -> Bool {
    first.transform(packet) && second.transform(packet)
  }
}
