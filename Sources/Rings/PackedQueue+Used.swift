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
    let word = refused.pointee
    if !_slowPath(word.isSet) { return false }
    if Order.isInOrder && beginBatch(Int(word.id), word.length, from: nextUsed, limit: heads) {
      return true
    }
    blame(Int(word.id), word.length)
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
    @usableFromInline let refused: UnsafeMutablePointer<UsedWord>
    public var length: UInt32 = 0
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
      refused = queue.refused
      refused.pointee = UsedWord()
    }

    @inlinable @inline(__always)
    public mutating func next(usually pieces: UInt16) -> Bool {
      if taken == limit { return false }
      return Order.isInOrder ? nextInOrder() : nextInAnyOrder()
    }

    /// The second word of the descriptor that is due. Marks, id and length lie in it: whoever sees the marks sees what
    /// was written before them.
    @inlinable @inline(__always)
    func readDescriptor() -> UInt64 { acquire_load64(descriptor + 8) }

    /// Also without the write flag: devices in the field leave it out (2.8.4), and it is checked all the same.
    @inlinable @inline(__always)
    func isUsed(_ word: UInt64) -> Bool {
      word & UInt64(PackedQueue.bothMarks) &<< 48 == marks
    }

    @inlinable @inline(__always)
    func id(_ word: UInt64) -> Int { Int(UInt16(truncatingIfNeeded: word &>> 32)) }

    /// One used descriptor for each chain, in any order.
    @inlinable @inline(__always)
    mutating func nextInAnyOrder() -> Bool {
      let word = readDescriptor()
      if !isUsed(word) { return false }
      let id = id(word)
      if _slowPath(id >= size) { return refuse(word) }
      let record = records + id
      if _slowPath(record.pointee.count == 0) { return refuse(word) }
      length = UInt32(truncatingIfNeeded: word)
      if _slowPath(length > record.pointee.writable) {
        if record.pointee.writable > 0 { return refuse(word) }
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
        let word = readDescriptor()
        if !isUsed(word) { return false }
        let written = UInt32(truncatingIfNeeded: word)
        if _slowPath(
          id(word) != due || record.pointee.count == 0 || !record.pointee.allows(written))
        {
          return refuse(word)
        }
        length = record.pointee.written(written)
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

    /// Kept in memory, not in this value: nothing of it need live through a caller's loop.
    @inlinable @inline(__always)
    func refuse(_ word: UInt64) -> Bool {
      refused.pointee = UsedWord(
        id: UInt32(truncatingIfNeeded: id(word)), length: UInt32(truncatingIfNeeded: word))
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
