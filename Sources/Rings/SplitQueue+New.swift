import CLinux
import Memory
import Virtio

/// What the driver makes available in bulk (virtio 1.2, 2.7.13).
extension SplitQueue {
  /// Chains that are being made available, one after the other.
  @frozen
  public struct NewChains: AvailableCursor {
    @usableFromInline let descriptors: UnsafeMutableRawPointer
    @usableFromInline let entries: UnsafeMutableRawPointer
    @usableFromInline let records: UnsafeMutablePointer<OutstandingChain>
    @usableFromInline let links: UnsafeMutablePointer<UInt16>
    @usableFromInline let free: UnsafeMutablePointer<UInt16>
    @usableFromInline let mask: UInt16
    @usableFromInline var index: UInt16
    public var room: Int
    /// In order: the descriptor that is used next.
    @usableFromInline var place: UInt16

    @inlinable @inline(__always)
    init(_ queue: borrowing SplitQueue) {
      descriptors = queue.descriptors
      entries = queue.available + 4
      records = queue.records
      links = queue.links
      free = queue.free
      mask = queue.mask
      index = queue.nextAvailable
      room = queue.freeCount
      place = queue.nextFree
    }

    @inlinable @inline(__always)
    public mutating func add(
      iova: UInt64, byteCount: UInt32, writable: Bool, place slot: UInt64, tag: UInt16
    ) {
      precondition(room >= 1)
      let head = takeFree()
      write(
        head, iova, SplitQueue.word(byteCount, writable ? SplitRing.write : 0, next: 0))
      expose(head, slot, writable: writable ? byteCount : 0, count: 1, tag)
    }

    @inlinable @inline(__always)
    public mutating func add(
      behind prefix: DMARange, iova: UInt64, byteCount: UInt32, place slot: UInt64, tag: UInt16
    ) {
      precondition(room >= 2)
      let head = takeFree()
      let next = takeFree()
      let prefixBytes = UInt32(truncatingIfNeeded: prefix.byteCount)
      write(head, prefix.iova, SplitQueue.word(prefixBytes, SplitRing.next, next: next))
      write(next, iova, UInt64(byteCount))
      if !Order.isInOrder { links[Int(head)] = next }
      expose(head, slot, writable: 0, count: 2, tag)
    }

    @inlinable @inline(__always)
    mutating func takeFree() -> UInt16 {
      room &-= 1
      if !Order.isInOrder { return free[room] }
      let index = place
      place = (place &+ 1) & mask
      return index
    }

    @inlinable @inline(__always)
    func write(_ index: UInt16, _ iova: UInt64, _ word: UInt64) {
      let descriptor = descriptors + Int(index) &* 16
      relaxed_store64(descriptor, iova)
      relaxed_store64(descriptor + 8, word)
    }

    @inlinable @inline(__always)
    mutating func expose(
      _ head: UInt16, _ slot: UInt64, writable: UInt32, count: UInt16, _ tag: UInt16
    ) {
      records[Int(head)] = OutstandingChain(
        place: slot, writable: writable, count: count, tag: tag)
      relaxed_store16(entries + Int(index & mask) &* 2, head)
      index &+= 1
    }
  }
}
