import Memory

/// A packet to be sent, where it lies in a burst. It borrows the burst's places: valid until the burst changes.
@frozen
public struct OutgoingPacket: Sendable {
  /// Its first slot, which may carry an ``Memory/Offload`` instead of bytes.
  public let at: Int
  /// Its pieces, the first and the last; none where `last` is less.
  public let first: Int
  public let last: Int
  /// Bytes of all pieces.
  public let bytes: Int
  /// The sender's tag, which comes back with the packet's completion.
  public let tag: UInt16

  /// - Parameter at: the packet's first slot; its last is `last`, as ``Memory/Burst/endOfPacket(from:)`` finds it.
  @inlinable @_noLocks
  public init(_ burst: borrowing Burst, from at: Int, through last: Int) {
    self.at = at
    self.last = last
    tag = burst[at].tag
    first = burst[at].flags.contains(.offload) ? at &+ 1 : at
    bytes = burst.byteCount(from: first, through: last)
  }

  @inlinable public var pieces: Int { last &- first &+ 1 }

  /// What is left to the device: nothing, where the packet does not say.
  /// - Returns: nil where what it says is none that exists.
  @inlinable @_noLocks
  public func offload(_ burst: borrowing Burst) -> Offload? {
    first == at ? Offload() : Offload(burst[at])
  }

  /// Copies the packet's first bytes, as far as there are any, from an arena to memory that the sender cannot change.
  /// - Parameter start: where they go to, in bytes from `headers`' begin.
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
