import CLinux
import Memory

/// The writing end of a single-producer, single-consumer ring in shared memory.
///
/// Indices run free in 32 bits. The peer's index is read only when the ring looks full, and is believed only as far
/// as it makes sense; our own is published once a burst. One thread.
@frozen
public struct RingProducer: ~Copyable, @unchecked Sendable {
  // Invariant: `slots` points at `mask + 1` slots that this end writes; `own` and `peer` at the indices. All stay
  // mapped as long as the channel's memory, which outlives its ends.
  @usableFromInline let slots: UnsafeMutablePointer<Descriptor>
  @usableFromInline let own: UnsafeMutableRawPointer
  @usableFromInline let peer: UnsafeMutableRawPointer
  @usableFromInline let mask: UInt32
  @usableFromInline var next: UInt32
  @usableFromInline var peerIndex: UInt32

  /// - Parameter index: how far an end before this one had written.
  @usableFromInline
  init(
    slots: UnsafeMutablePointer<Descriptor>, own: UnsafeMutableRawPointer,
    peer: UnsafeMutableRawPointer, count: Int, from index: UInt32 = 0
  ) {
    self.slots = slots
    self.own = own
    self.peer = peer
    mask = UInt32(count - 1)
    next = index
    // What the peer has read is looked at before anything is written.
    peerIndex = index &- UInt32(count)
  }

  /// Where the next slot goes, published or not.
  @inlinable public var index: UInt32 { @_noLocks get { next } }

  /// Moves packets from the burst's front into the ring, whole ones only, as many as there is room for.
  @inlinable @inline(__always) @_noLocks
  public mutating func push(_ burst: inout Burst) {
    let moved = place(burst)
    if moved == 0 { return }
    publish()
    burst.removeFirst(moved)
  }

  /// Shows the peer all that has been placed.
  @inlinable @inline(__always) @_noLocks
  public func publish() { release_store32(own, next) }

  /// Copies packets from the burst's front into the ring, whole ones only, as many as there is room for. The peer sees
  /// none of them before ``publish()``.
  /// - Returns: how many slots.
  @inlinable @inline(__always) @_noLocks
  public mutating func place(_ burst: borrowing Burst) -> Int {
    let count = burst.count
    if count == 0 { return 0 }
    var room = Int(mask &+ 1 &- (next &- peerIndex))
    if room < count {
      // A consumer that claims more than was written only hurts itself: it is taken as an empty ring at most.
      let claimed = acquire_load32(peer)
      if next &- claimed <= mask &+ 1 { peerIndex = claimed }
      room = Int(mask &+ 1 &- (next &- peerIndex))
    }
    var moved = min(room, count)
    if moved < count {
      while moved > 0 && burst[moved &- 1].flags.contains(.more) { moved &-= 1 }
    }
    if moved == 0 { return 0 }
    let first = Int(next & mask)
    let straight = min(moved, Int(mask) &+ 1 &- first)
    copy(slots + first, from: burst.start, straight)
    if straight < moved { copy(slots, from: burst.start + straight, moved &- straight) }
    next = next &+ UInt32(truncatingIfNeeded: moved)
    return moved
  }

  /// Whether the peer claims to have read no more than there is.
  var hasPlausiblePeer: Bool { next &- relaxed_load32(peer) <= mask &+ 1 }

  /// How far the peer says that it has read: not checked.
  @inlinable public var taken: UInt32 { @_noLocks get { relaxed_load32(peer) } }

  /// Slots that have been placed and, as the peer says, not been read yet: no more than there are.
  public var level: Int { Int(min(next &- taken, mask &+ 1)) }

  /// Slots that are free as far as is known without looking at the peer.
  @inlinable @_noLocks
  public mutating func room() -> Int {
    let claimed = acquire_load32(peer)
    if next &- claimed <= mask &+ 1 { peerIndex = claimed }
    return Int(mask &+ 1 &- (next &- peerIndex))
  }
}

/// The reading end of a ring in shared memory. Each slot is copied once, then used. One thread.
@frozen
public struct RingConsumer: ~Copyable, @unchecked Sendable {
  // Invariant: as for RingProducer; `slots` are only read.
  @usableFromInline let slots: UnsafeMutablePointer<Descriptor>
  @usableFromInline let own: UnsafeMutableRawPointer
  @usableFromInline let peer: UnsafeMutableRawPointer
  @usableFromInline let mask: UInt32
  @usableFromInline var next: UInt32
  @usableFromInline var peerIndex: UInt32

  /// - Parameter index: how far an end before this one had read.
  @usableFromInline
  init(
    slots: UnsafeMutablePointer<Descriptor>, own: UnsafeMutableRawPointer,
    peer: UnsafeMutableRawPointer, count: Int, from index: UInt32 = 0
  ) {
    self.slots = slots
    self.own = own
    self.peer = peer
    mask = UInt32(count - 1)
    next = index
    peerIndex = index
  }

  /// Where the next slot comes from, whether or not the peer has been shown that those before were taken.
  @inlinable public var index: UInt32 { @_noLocks get { next } }

  /// Appends packets, whole ones only, as far as the burst has room.
  @inlinable @inline(__always) @_noLocks
  public mutating func pop(into burst: inout Burst) throws(ChannelError) {
    let before = next
    try take(into: &burst)
    if next != before { publish() }
  }

  /// Shows the peer that all that has been taken can be written again.
  @inlinable @inline(__always) @_noLocks
  public func publish() { release_store32(own, next) }

  /// As ``pop(into:)``; the peer does not see it before ``publish()``.
  @inlinable @inline(__always) @_noLocks
  public mutating func take(into burst: inout Burst) throws(ChannelError) {
    if peerIndex == next {
      let claimed = acquire_load32(peer)
      if claimed &- next > mask &+ 1 {
        throw .indexJump(from: next, to: claimed, slots: Int(mask &+ 1))
      }
      peerIndex = claimed
      if claimed == next { return }
    }
    let taken = min(Int(peerIndex &- next), burst.room)
    if taken == 0 { return }
    let target = burst.end
    let first = Int(next & mask)
    let straight = min(taken, Int(mask) &+ 1 &- first)
    copy(target, from: slots + first, straight)
    if straight < taken { copy(target + straight, from: slots, taken &- straight) }
    // A packet whose end is not here yet stays in the ring.
    var kept = taken
    while kept > 0 && target[kept &- 1].flags.contains(.more) { kept &-= 1 }
    if taken &- kept >= Descriptor.maximumSlots { throw .endlessPacket }
    burst.append(written: kept)
    next = next &+ UInt32(truncatingIfNeeded: kept)
    // The rest of a packet that was cut may have been published since.
    if kept < taken { peerIndex = next }
  }

  /// Whether the producer has published anything more.
  @inlinable @_noLocks
  public func isEmpty() -> Bool { acquire_load32(peer) == next }

  /// Slots that the peer says it has placed and that have not been read yet: no more than there are.
  public var level: Int { Int(min(published &- next, mask &+ 1)) }

  /// What the producer says that it has published: not checked.
  @inlinable
  var published: UInt32 { @_noLocks get { relaxed_load32(peer) } }
}

/// Copies slots that lie behind each other.
@inlinable @inline(__always) @_noLocks
func copy(
  _ target: UnsafeMutablePointer<Descriptor>, from source: UnsafePointer<Descriptor>, _ count: Int
) {
  UnsafeMutableRawPointer(target).copyMemory(
    from: source, byteCount: count &* MemoryLayout<Descriptor>.stride)
}
