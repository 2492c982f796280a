import CLinux
import Memory

/// The driver's side of a ring of 16-byte descriptors that the device writes its completions into, in order: how most
/// Ethernet controllers work. Which bits mean what is the driver's; the ring knows who holds which slot.
///
/// The device may write anything anywhere in the ring at any time. What decides is the private record; a completed
/// descriptor is read once and its caller checks it. One thread.
@frozen
public struct DescriptorRing: ~Copyable, @unchecked Sendable {
  // Invariant: `records` has `size` elements; slots from `oldest` up to `next` (modulo size) are the device's.
  @usableFromInline let memory: DMARange
  @usableFromInline let records: UnsafeMutablePointer<UInt64>
  /// Slots; one of them always stays with the driver, since equal head and tail mean an empty ring.
  public let size: Int
  @usableFromInline let mask: Int
  @usableFromInline var next = 0
  @usableFromInline var oldest = 0
  @usableFromInline var held = 0

  /// Bytes of ring memory for so many slots.
  /// - Parameter size: slots.
  public static func byteCount(size: Int) -> Int { size * 16 }

  /// - Parameters:
  ///   - memory: ``byteCount(size:)`` zeroed bytes, aligned as the device wants it.
  ///   - size: a power of two, at least 8.
  public init(memory: DMARange, size: Int) {
    precondition(size >= 8 && size & (size - 1) == 0)
    precondition(memory.byteCount >= Self.byteCount(size: size) && memory.iova & 15 == 0)
    self.memory = memory
    self.size = size
    mask = size - 1
    records = .allocate(capacity: size)
    records.initialize(repeating: 0, count: size)
  }

  deinit { records.deallocate() }

  /// Where the ring begins, for the device.
  public var iova: UInt64 { memory.iova }
  /// Slots that can be filled now.
  @inlinable public var room: Int { size &- 1 &- held }
  /// Slots that the device holds.
  @inlinable public var outstanding: Int { held }

  /// The slot that the next one given will be: what belongs to it can be prepared.
  @inlinable public var nextSlot: Int { next }

  /// Fills the next slot; there must be room. The device sees it when its tail register is written.
  /// - Parameters:
  ///   - low: its first eight bytes, usually the buffer's address.
  ///   - high: its last eight bytes, where the device writes its completion.
  ///   - cookie: comes back with the slot; the device does not see it.
  @inlinable @_noLocks
  public mutating func give(_ low: UInt64, _ high: UInt64, cookie: UInt64) {
    precondition(held < size &- 1)
    let slot = next &* 16
    memory.store64(low, at: slot)
    memory.store64(high, at: slot &+ 8)
    records[next] = cookie
    next = (next &+ 1) & mask
    held &+= 1
  }

  /// Makes what was filled visible to the device before its tail register is written.
  /// - Returns: the tail.
  @inlinable @_noLocks
  public func publish() -> UInt32 {
    release_fence()
    return UInt32(truncatingIfNeeded: next)
  }

  /// The second half of the slot that is `ahead` places after the oldest one, which the device must hold. What else
  /// the device wrote into it is read after this.
  @inlinable @_noLocks
  public func completion(ahead: Int = 0) -> UInt64 {
    precondition(ahead >= 0 && ahead < held)
    return memory.loadAcquiring64(at: ((oldest &+ ahead) & mask) &* 16 &+ 8)
  }

  /// The cookie of the slot that is `ahead` places after the oldest one.
  @inlinable @_noLocks
  public func cookie(ahead: Int = 0) -> UInt64 {
    precondition(ahead >= 0 && ahead < held)
    return records[(oldest &+ ahead) & mask]
  }

  /// Takes the oldest slot back: its completion has been read, or the device has been reset.
  /// - Returns: its cookie.
  @inlinable @_noLocks
  public mutating func take() -> UInt64 {
    precondition(held > 0)
    let cookie = records[oldest]
    oldest = (oldest &+ 1) & mask
    held &-= 1
    return cookie
  }
}
