import Memory

/// Chains that a device has used, one after the other: a plain value that lives in a caller's loop, so that what is
/// done with a chain and what the ring does about it are one pass. Begun by ``Virtqueue/usedChains(limit:)``, ended by
/// ``Virtqueue/take(_:)``. One thread.
public protocol UsedCursor: BitwiseCopyable {
  /// Goes to the next chain.
  /// - Parameter pieces: descriptors that nearly every chain has, 1 or 2, known when this is compiled: others cost a call.
  /// - Returns: false where none is left, or the device has broken its contract.
  mutating func next(usually pieces: UInt16) -> Bool
  /// Segment and offset of the chain's slot, as it was made available (``/Memory/Descriptor/position(of:)``).
  var place: UInt64 { get }
  /// Bytes that the device says it wrote: never more than were writable.
  var length: UInt32 { get }
  /// The slot's tag.
  var tag: UInt16 { get }
}

extension UsedCursor {
  /// The slot's second word, without flags.
  @inlinable public var rest: UInt64 { UInt64(length) | UInt64(tag) &<< 48 }

  /// The slot, without flags.
  @inlinable public var slot: Descriptor {
    Descriptor(
      segment: UInt32(truncatingIfNeeded: place), offset: UInt32(truncatingIfNeeded: place &>> 32),
      length: length, tag: tag)
  }
}

extension Virtqueue where Self: ~Copyable {
  /// Appends what the device has used, oldest first, until nothing is left, the burst is full, or there are `limit`
  /// more: each slot as it was made available, with the bytes that the device says it wrote as its length (never more
  /// than were writable), and without flags.
  /// - Parameters:
  ///   - burst: where they are appended.
  ///   - limit: how many more there may be.
  ///   - pieces: as in ``UsedCursor/next(usually:)``.
  /// - Throws: the device's violation. Where some buffers before it are good, these are appended, and the next call
  ///   throws.
  @inlinable @inline(__always)
  public mutating func takeUsed(
    into burst: inout Burst, limit: Int, usually pieces: UInt16 = 1
  ) throws(RingError) {
    let full = burst.count &+ min(limit, burst.room)
    var isMore = true
    while isMore {
      var chains = try usedChains(limit: full &- burst.count)
      let first = burst.end
      var slot = first
      while chains.next(usually: pieces) {
        slot.store(place: chains.place, rest: chains.rest)
        slot += 1
      }
      burst.append(written: slot - first)
      isMore = try take(chains)
    }
  }
}

/// What was made available under a head or id: the private truth.
@frozen @usableFromInline
struct OutstandingChain: BitwiseCopyable {
  /// Segment and offset of the slot, as in a ``/Memory/Descriptor``.
  @usableFromInline var place: UInt64
  /// Bytes that the device may write.
  @usableFromInline var writable: UInt32
  /// Descriptors of the chain; 0 where the device does not hold it.
  @usableFromInline var count: UInt16
  /// The slot's tag.
  @usableFromInline var tag: UInt16

  @inlinable @inline(__always)
  init(place: UInt64, writable: UInt32, count: UInt16, tag: UInt16) {
    self.place = place
    self.writable = writable
    self.count = count
    self.tag = tag
  }

  /// None: the device does not hold it.
  @inlinable
  init() { self.init(place: 0, writable: 0, count: 0, tag: 0) }

  @inlinable
  init(_ slot: Descriptor, writable: UInt32, count: UInt16) {
    self.init(
      place: UInt64(slot.segment) | UInt64(slot.offset) &<< 32, writable: writable, count: count,
      tag: slot.tag)
  }

  /// The device does not hold it any more. Two fields at once cost no more than one.
  @inlinable @inline(__always)
  mutating func forget() {
    count = 0
    tag = 0
  }

  /// What comes back of it when the device is reset.
  @inlinable
  var unused: Descriptor {
    Descriptor(
      segment: UInt32(truncatingIfNeeded: place), offset: UInt32(truncatingIfNeeded: place &>> 32),
      tag: tag)
  }

  /// Whether the device may say that it wrote so many bytes. Of what it only reads its word means nothing (2.7.8.3).
  @inlinable @inline(__always)
  func allows(_ length: UInt32) -> Bool { !_slowPath(length > writable) || writable == 0 }

  /// How many it did write, of a length that is allowed.
  @inlinable @inline(__always)
  func written(_ length: UInt32) -> UInt32 { _slowPath(length > writable) ? 0 : length }
}

/// What a device wrote of a chain that is not as expected.
@frozen @usableFromInline
struct UsedWord: BitwiseCopyable {
  @usableFromInline let id: UInt32
  @usableFromInline let length: UInt32
  @usableFromInline let isSet: Bool

  @inlinable
  init() { (id, length, isSet) = (0, 0, false) }

  @inlinable @inline(__always)
  init(id: UInt32, length: UInt32) { (self.id, self.length, isSet) = (id, length, true) }
}

/// Buffers that an in-order device has used without a word for each.
@frozen @usableFromInline
struct UsedBatch: BitwiseCopyable {
  /// Chains that are still to be taken, the last one included; 0 where the device's next word is to be read.
  @usableFromInline var left = 0
  /// What it wrote into the last one.
  @usableFromInline var lastLength: UInt32 = 0
  @inlinable init() {}
}
