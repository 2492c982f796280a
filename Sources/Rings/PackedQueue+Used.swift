import CLinux
import Memory
import Virtio

/// What the device has used (virtio 1.2, 2.8.22).
extension PackedQueue {
  @inlinable @inline(__always)
  public mutating func usedChains(limit: Int) throws(RingError) -> UsedChains {
    if let broken { throw broken }
    return UsedChains(self, limit: limit)
  }

  @inlinable @inline(__always)
  public mutating func take(_ chains: UsedChains) throws(RingError) -> Bool {
    nextUsed = (chains.descriptor - descriptors) &>> 4
    usedMarks = UInt16(truncatingIfNeeded: chains.marks &>> 48)
    freeCount = chains.freed
    heads &-= chains.taken
    if Order.isInOrder { batch = chains.batch }
    if !_slowPath(chains.isUnexpected) { return false }
    if Order.isInOrder && beginBatch(chains.id, chains.length, from: nextUsed, limit: heads) {
      return true
    }
    blame(chains.id, chains.length)
    if chains.taken == 0, let broken { throw broken }
    return false
  }

  /// What the device has used, one chain after the other.
  @frozen
  public struct UsedChains: UsedCursor {
    @usableFromInline let ring: UnsafeMutableRawPointer
    @usableFromInline let records: UnsafeMutablePointer<OutstandingChain>
    /// Where the ids go that are free again.
    @usableFromInline let ids: UnsafeMutablePointer<UInt16>
    @usableFromInline let size: Int
    @usableFromInline let limit: Int
    @usableFromInline var taken = 0
    /// The descriptor that is due, and the marks of a used one at it, in their place in its second word.
    @usableFromInline var descriptor: UnsafeMutableRawPointer
    @usableFromInline var marks: UInt64
    @usableFromInline var freed: Int
    /// In order: what the device said of several chains.
    @usableFromInline var batch: UsedBatch
    /// What the device wrote last.
    @usableFromInline var id = 0
    public var length: UInt32 = 0
    @usableFromInline var isUnexpected = false
    public var place: UInt64 = 0
    public var tag: UInt16 = 0

    @inlinable @inline(__always)
    init(_ queue: borrowing PackedQueue, limit: Int) {
      ring = queue.descriptors
      records = queue.records
      ids = queue.freeIDs + (queue.size &- queue.heads)
      size = queue.size
      self.limit = max(0, limit)
      descriptor = ring + queue.nextUsed &* 16
      marks = UInt64(queue.usedMarks) &<< 48
      freed = queue.freeCount
      batch = queue.batch
    }

    @inlinable @inline(__always)
    public mutating func next() -> Bool {
      if taken == limit { return false }
      return Order.isInOrder ? nextInOrder() : nextInAnyOrder()
    }

    /// - Returns: whether the descriptor that is due has been used.
    @inlinable @inline(__always)
    mutating func readDescriptor() -> Bool {
      // Marks, id and length lie in one word: whoever sees the marks sees what was written before them.
      let word = acquire_load64(descriptor + 8)
      if word & UInt64(PackedQueue.bothMarks) &<< 48 != marks { return false }
      // Also without the write flag: devices in the field leave it out (2.8.4), and it is checked all the same.
      id = Int(UInt16(truncatingIfNeeded: word &>> 32))
      length = UInt32(truncatingIfNeeded: word)
      return true
    }

    /// One used descriptor for each chain, in any order.
    @inlinable @inline(__always)
    mutating func nextInAnyOrder() -> Bool {
      if !readDescriptor() { return false }
      if _slowPath(id >= size) { return refuse() }
      let record = records + id
      if _slowPath(record.pointee.count == 0) { return refuse() }
      if _slowPath(length > record.pointee.writable) {
        if record.pointee.writable > 0 { return refuse() }
        length = 0
      }
      ids[taken] = UInt16(truncatingIfNeeded: id)
      hand(record)
      return true
    }

    /// Chains from the oldest one on, whose first descriptor is the one due; a used descriptor that names a later chain
    /// stands for all up to that (2.8.8).
    @inlinable @inline(__always)
    mutating func nextInOrder() -> Bool {
      let due = (descriptor - ring) &>> 4
      let record = records + due
      if batch.left == 0 {
        if !readDescriptor() { return false }
        if _slowPath(
          id != due || record.pointee.count == 0 || !record.pointee.allows(length))
        {
          return refuse()
        }
        length = record.pointee.written(length)
      } else {
        batch.left &-= 1
        length = batch.left == 0 ? batch.lastLength : record.pointee.writable
      }
      hand(record)
      return true
    }

    /// Past the descriptors of the chain, of which the ring has as many.
    @inlinable @inline(__always)
    mutating func hand(_ record: UnsafeMutablePointer<OutstandingChain>) {
      let count = Int(record.pointee.count)
      place = record.pointee.place
      tag = record.pointee.tag
      record.pointee.forget()
      freed &+= count
      descriptor += count &* 16
      if _slowPath(descriptor >= ring + size &* 16) {
        descriptor -= size &* 16
        marks ^= UInt64(PackedQueue.bothMarks) &<< 48
      }
      taken &+= 1
    }

    @inlinable @inline(__always)
    mutating func refuse() -> Bool {
      isUnexpected = true
      return false
    }
  }

  /// The device has named a chain that it does not hold, or written more than it may.
  @inlinable @inline(never)
  mutating func blame(_ id: Int, _ length: UInt32) {
    if isBroken { return }
    let name = UInt32(truncatingIfNeeded: id)
    if id >= size {
      broken = .idOutOfRange(id: name, size: size)
    } else if records[id].count == 0 {
      broken = .idNotOutstanding(id: name)
    } else {
      broken = .lengthBeyondBuffer(id: name, length: length, posted: records[id].writable)
    }
  }

  /// The device names a chain that is not the oldest one, or one with an impossible length.
  /// - Parameter limit: chains that it holds.
  /// - Returns: whether that chain and those before it can be taken.
  @inlinable @inline(never)
  mutating func beginBatch(_ id: Int, _ length: UInt32, from oldest: Int, limit: Int) -> Bool {
    if id >= size || records[id].count == 0 || !records[id].allows(length) { return false }
    var place = oldest
    var chains = 1
    while place != id {
      place &+= Int(records[place].count)
      if place >= size { place &-= size }
      chains &+= 1
      if chains > limit {
        broken = .outOfOrder(
          id: UInt32(truncatingIfNeeded: id), expected: UInt32(truncatingIfNeeded: oldest))
        return false
      }
    }
    batch.left = chains
    batch.lastLength = records[id].written(length)
    return true
  }

  public mutating func takeOutstanding() -> Descriptor? {
    if heads == 0 { return nil }
    for id in 0..<size where records[id].count != 0 {
      let record = records[id]
      records[id].forget()
      freeIDs[size - heads] = UInt16(id)
      heads -= 1
      freeCount += Int(record.count)
      return record.unused
    }
    return nil
  }
}
