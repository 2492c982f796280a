import Memory

/// Chains that are being made available, one after the other: a plain value that lives in a caller's loop, so that what
/// is looked at in a slot and what becomes of it are one pass. Begun by ``Virtqueue/newChains()``, ended by
/// ``Virtqueue/add(_:)``. One thread.
public protocol AvailableCursor: BitwiseCopyable {
  /// Descriptors that are still free.
  var room: Int { get }
  /// Adds a chain of one descriptor, for which there must be room.
  /// - Parameters:
  ///   - iova: the first byte, for the device.
  ///   - byteCount: its bytes, at least 1.
  ///   - writable: whether the device writes them, or reads.
  ///   - slot: segment and offset of what comes back with it (``/Memory/Descriptor/position(of:)``).
  ///   - tag: comes back too.
  mutating func add(
    iova: UInt64, byteCount: UInt32, writable: Bool, place slot: UInt64, tag: UInt16)
  /// Adds a chain of two descriptors that the device reads, for which there must be room.
  /// - Parameters:
  ///   - prefix: what the device reads first.
  ///   - iova: the first byte of what follows, for the device.
  ///   - byteCount: its bytes, at least 1.
  ///   - slot: segment and offset of what comes back with it.
  ///   - tag: comes back too.
  mutating func add(
    behind prefix: DMARange, iova: UInt64, byteCount: UInt32, place slot: UInt64, tag: UInt16)
}

extension Virtqueue where Self: ~Copyable {
  /// Makes one device-writable buffer of each of the burst's first slots available, at the next ``publish()``. There must
  /// be room, and none of them may be empty. A slot comes back with the number of bytes that were written.
  /// - Parameters:
  ///   - burst: slots whose bytes the device may write.
  ///   - count: how many of them.
  ///   - base: the IOVA that a slot's position counts from.
  @inlinable
  public mutating func addWritable(_ burst: borrowing Burst, count: Int, base: UInt64) {
    precondition(count >= 0 && count <= burst.count && count <= room)
    var slot = burst.start
    var chains = newChains()
    // One number counts down: that there is room for each follows from it.
    let last = chains.room &- count
    while chains.room > last {
      let place = slot.place
      chains.add(
        iova: base &+ Descriptor.position(of: place),
        byteCount: UInt32(truncatingIfNeeded: slot.rest), writable: true, place: place, tag: 0)
      slot += 1
    }
    add(chains)
  }
}
