import Memory

/// A packet to be sent, where it lies in a burst. It borrows the burst's places: valid until the burst changes.
@frozen
public struct OutgoingPacket: Sendable {
  /// Its first slot, which may carry an `Offload` instead of bytes.
  public let at: Int
  /// Its first piece.
  public let first: Int
  /// Its last piece; it has none where this is less than `first`.
  public let last: Int
  /// Bytes of all pieces.
  public let bytes: Int
  /// The sender's tag, which comes back with the packet's completion.
  public let tag: UInt16

  /// - Parameters:
  ///   - burst: the one that it lies in.
  ///   - at: its first slot.
  ///   - last: its last slot, as `Burst.endOfPacket(from:)` finds it.
  @inlinable @_noLocks
  public init(_ burst: borrowing Burst, from at: Int, through last: Int) {
    self.at = at
    self.last = last
    tag = burst[at].tag
    first = burst[at].flags.contains(.offload) ? at &+ 1 : at
    bytes = burst.byteCount(from: first, through: last)
  }

  /// How many pieces it has.
  @inlinable public var pieces: Int { last &- first &+ 1 }

  /// What is left to the device: nothing, where the packet does not say.
  /// - Parameter burst: the one that it lies in.
  /// - Returns: nil where what it says is none that exists.
  @inlinable @_noLocks
  public func offload(_ burst: borrowing Burst) -> Offload? {
    first == at ? Offload() : Offload(burst[at])
  }

  /// Copies the packet's first bytes, as far as there are any, from an arena to memory that the sender cannot change.
  /// - Parameters:
  ///   - burst: the one that the packet lies in.
  ///   - arena: the memory that its pieces lie in.
  ///   - byteCount: how many bytes, at most.
  ///   - headers: where they go to.
  ///   - start: from its begin, in bytes.
  @inlinable @_noLocks
  public func copy(
    _ burst: borrowing Burst, of arena: DMARange, byteCount: Int, to headers: DMARange,
    at start: Int
  ) {
    var done = 0
    var index = first
    while index <= last && done < byteCount {
      let from = Int(burst[index].position)
      let count = min(Int(burst[index].length), byteCount &- done)
      for at in 0..<count { headers.store8(arena.load8(at: from &+ at), at: start &+ done &+ at) }
      done &+= count
      index &+= 1
    }
  }
}
