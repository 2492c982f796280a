import CLinux
import Memory
import Virtio

/// What the driver makes available in bulk (virtio 1.2, 2.8.21).
extension PackedQueue {
  /// Chains that are being made available, one after the other.
  @frozen
  public struct NewChains: AvailableCursor {
    @usableFromInline let ring: UnsafeMutableRawPointer
    @usableFromInline let end: UnsafeMutableRawPointer
    @usableFromInline let records: UnsafeMutablePointer<OutstandingChain>
    @usableFromInline let ids: UnsafeMutablePointer<UInt16>
    /// The descriptor whose second half is kept back, and where; none where that of an earlier one is.
    @usableFromInline let first: UnsafeMutableRawPointer?
    @usableFromInline let keptBack: UnsafeMutableRawPointer
    /// The descriptor that is written next, and the marks of an available one at it, in their place in its second half.
    @usableFromInline var descriptor: UnsafeMutableRawPointer
    @usableFromInline var marks: UInt64
    public var room: Int
    @usableFromInline var count = 0

    @inlinable @inline(__always)
    init(_ queue: borrowing PackedQueue) {
      ring = queue.descriptors
      end = ring + queue.size &* 16
      records = queue.records
      ids = queue.freeIDs + (queue.size &- queue.heads &- 1)
      descriptor = ring + queue.next &* 16
      first = queue.first == nil ? descriptor : nil
      keptBack = UnsafeMutableRawPointer(queue.keptBack)
      marks = UInt64(queue.availableMarks) &<< 48
      room = queue.freeCount
    }

    @inlinable @inline(__always)
    public mutating func add(
      iova: UInt64, byteCount: UInt32, writable: Bool, place slot: UInt64, tag: UInt16
    ) {
      precondition(room >= 1)
      let id = nextID()
      let head = takeDescriptor(iova)
      let flags = writable ? PackedRing.write : 0
      writeHead(head.descriptor, PackedQueue.word(byteCount, id: id, flags) | head.marks)
      records[id] = OutstandingChain(
        place: slot, writable: writable ? byteCount : 0, count: 1, tag: tag)
      count &+= 1
    }

    @inlinable @inline(__always)
    public mutating func add(
      behind prefix: DMARange, iova: UInt64, byteCount: UInt32, place slot: UInt64, tag: UInt16
    ) {
      precondition(room >= 2)
      let id = nextID()
      let head = takeDescriptor(prefix.iova)
      let second = takeDescriptor(iova)
      relaxed_store64(
        second.descriptor + 8, PackedQueue.word(byteCount, id: id, 0) | second.marks)
      // Only the first of all is waited with until the others are visible: the device asks for no order among them.
      let prefixBytes = UInt32(truncatingIfNeeded: prefix.byteCount)
      writeHead(
        head.descriptor, PackedQueue.word(prefixBytes, id: id, PackedRing.next) | head.marks)
      records[id] = OutstandingChain(place: slot, writable: 0, count: 2, tag: tag)
      count &+= 1
    }

    /// In order, the place of the chain's first descriptor.
    @inlinable @inline(__always)
    func nextID() -> Int {
      Order.isInOrder ? (descriptor - ring) &>> 4 : Int(ids[-count])
    }

    /// To the next descriptor; behind the last one the wrap counter changes (2.8.1).
    @inlinable @inline(__always)
    mutating func takeDescriptor(
      _ iova: UInt64
    ) -> (descriptor: UnsafeMutableRawPointer, marks: UInt64) {
      room &-= 1
      let taken = (descriptor, marks)
      relaxed_store64(descriptor, iova)
      descriptor += 16
      if _slowPath(descriptor == end) {
        descriptor = ring
        marks ^= UInt64(PackedQueue.bothMarks) &<< 48
      }
      return taken
    }

    /// A place is chosen, not a branch.
    @inlinable @inline(__always)
    func writeHead(_ head: UnsafeMutableRawPointer, _ word: UInt64) {
      relaxed_store64(head == first ? keptBack : head + 8, word)
    }
  }
}
