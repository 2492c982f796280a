import CLinux
import Memory

/// What the device has used (virtio 1.2, 2.7.8).
extension SplitQueue {
  @inlinable @inline(__always)
  public mutating func usedChains(limit: Int) throws(RingError) -> UsedChains {
    if let broken { throw broken }
    let index = acquire_load16(used + 2)
    let ready = Int(index &- nextUsed)
    if ready > heads {
      let error = RingError.indexJump(from: nextUsed, to: index, outstanding: heads)
      broken = error
      throw error
    }
    return UsedChains(self, ready: ready, limit: limit)
  }

  @inlinable @inline(__always)
  public mutating func take(_ chains: UsedChains) throws(RingError) -> Bool {
    let taken = Int(chains.index &- UInt32(nextUsed))
    nextUsed = UInt16(truncatingIfNeeded: chains.index)
    freeCount = chains.freed
    heads &-= taken
    if Order.isInOrder {
      oldest = chains.head
      batch = chains.batch
    }
    let word = refused.pointee
    if !_slowPath(word.isSet) { return false }
    if Order.isInOrder
      && beginBatch(word.id, word.length, from: oldest, limit: chains.ready &- taken)
    {
      return true
    }
    blame(word.id, word.length)
    if taken == 0, let broken { throw broken }
    return false
  }

  /// What the device has used, one chain after the other.
  @frozen
  public struct UsedChains: UsedCursor {
    @usableFromInline let elements: UnsafeMutableRawPointer
    @usableFromInline let records: UnsafeMutablePointer<OutstandingChain>
    @usableFromInline let links: UnsafeMutablePointer<UInt16>
    @usableFromInline let free: UnsafeMutablePointer<UInt16>
    @usableFromInline let mask: UInt32
    /// Elements from here to the end may be looked at.
    @usableFromInline var index: UInt32
    @usableFromInline let end: UInt32
    /// Chains that the device had used in all when it was asked.
    @usableFromInline let ready: Int
    @usableFromInline var freed: Int
    /// In order: the oldest chain, and what the device said of several.
    @usableFromInline var head: UInt16
    @usableFromInline var batch: UsedBatch
    @usableFromInline let refused: UnsafeMutablePointer<UsedWord>
    public var length: UInt32 = 0
    public var place: UInt64 = 0
    public var tag: UInt16 = 0

    @inlinable @inline(__always)
    init(_ queue: borrowing SplitQueue, ready: Int, limit: Int) {
      elements = queue.used + 4
      records = queue.records
      links = queue.links
      free = queue.free
      mask = UInt32(queue.mask)
      index = UInt32(queue.nextUsed)
      end = index &+ UInt32(truncatingIfNeeded: max(0, min(ready, limit)))
      self.ready = ready
      freed = queue.freeCount
      head = queue.oldest
      batch = queue.batch
      refused = queue.refused
      refused.pointee = UsedWord()
    }

    @inlinable @inline(__always)
    public mutating func next(usually pieces: UInt16) -> Bool {
      if index == end { return false }
      return Order.isInOrder ? nextInOrder() : nextInAnyOrder(usually: pieces)
    }

    @inlinable @inline(__always)
    func readElement() -> (id: UInt32, length: UInt32) {
      let element = elements + Int(index & mask) &* 8
      return (relaxed_load32(element), relaxed_load32(element + 4))
    }

    /// One used element for each chain, in any order.
    @inlinable @inline(__always)
    mutating func nextInAnyOrder(usually pieces: UInt16) -> Bool {
      let (id, written) = readElement()
      if _slowPath(id > mask) { return refuse(id, written) }
      let record = records + Int(id)
      length = written
      if _slowPath(written > record.pointee.writable) {
        if record.pointee.writable > 0 { return refuse(id, written) }
        length = 0
      }
      free[freed] = UInt16(truncatingIfNeeded: id)
      let count = record.pointee.count
      if count == pieces && pieces <= 2 {
        if pieces == 2 { free[freed &+ 1] = links[Int(id)] }
        freed &+= Int(pieces)
      } else if count > 0 {
        Self.free(links, of: Int(id), count &- 1, free + freed)
        freed &+= Int(count)
      } else {
        return refuse(id, written)
      }
      hand(record)
      return true
    }

    /// The other descriptors of a chain.
    @inlinable @inline(never)
    static func free(
      _ links: UnsafeMutablePointer<UInt16>, of head: Int, _ count: UInt16,
      _ free: UnsafeMutablePointer<UInt16>
    ) {
      var last = head
      for number in 0..<Int(count) {
        last = Int(links[last])
        free[number &+ 1] = UInt16(truncatingIfNeeded: last)
      }
    }

    /// Chains from the oldest one on; a used element that names a later one stands for all up to that (2.7.9).
    @inlinable @inline(__always)
    mutating func nextInOrder() -> Bool {
      let record = records + Int(head)
      if batch.left == 0 {
        let (id, written) = readElement()
        if _slowPath(id != UInt32(head) || !record.pointee.allows(written)) {
          return refuse(id, written)
        }
        length = record.pointee.written(written)
      } else {
        batch.left &-= 1
        length = batch.left == 0 ? batch.lastLength : record.pointee.writable
      }
      let count = record.pointee.count
      freed &+= Int(count)
      head = (head &+ count) & UInt16(truncatingIfNeeded: mask)
      hand(record)
      return true
    }

    @inlinable @inline(__always)
    mutating func hand(_ record: UnsafeMutablePointer<OutstandingChain>) {
      place = record.pointee.place
      tag = record.pointee.tag
      record.pointee.forget()
      index &+= 1
    }

    /// Kept in memory, not in this value: nothing of it need live through a caller's loop.
    @inlinable @inline(__always)
    func refuse(_ id: UInt32, _ length: UInt32) -> Bool {
      refused.pointee = UsedWord(id: id, length: length)
      return false
    }
  }

  /// The device has named a chain that it does not hold, or written more than it may.
  @inlinable @inline(never)
  mutating func blame(_ id: UInt32, _ length: UInt32) {
    if isBroken { return }
    if id > UInt32(mask) {
      broken = .idOutOfRange(id: id, size: size)
    } else if records[Int(id)].count == 0 {
      broken = .idNotOutstanding(id: id)
    } else {
      broken = .lengthBeyondBuffer(id: id, length: length, posted: records[Int(id)].writable)
    }
  }

  /// The device names a chain that is not the oldest one, or one with an impossible length.
  /// - Parameter limit: chains that it has used, as its index says.
  /// - Returns: whether that chain and those before it can be taken.
  @inlinable @inline(never)
  mutating func beginBatch(_ id: UInt32, _ length: UInt32, from oldest: UInt16, limit: Int) -> Bool
  {
    if id > UInt32(mask) || records[Int(id)].count == 0 || !records[Int(id)].allows(length) {
      return false
    }
    var head = oldest
    var chains = 1
    while UInt32(head) != id {
      head = (head &+ UInt16(truncatingIfNeeded: records[Int(head)].count)) & mask
      chains &+= 1
      if chains > limit {
        broken = .outOfOrder(id: id, expected: UInt32(oldest))
        return false
      }
    }
    batch.left = chains
    batch.lastLength = records[Int(id)].written(length)
    return true
  }

  public mutating func takeOutstanding() -> Descriptor? {
    if heads == 0 { return nil }
    for head in 0..<size where records[head].count != 0 {
      heads -= 1
      let record = records[head]
      records[head].forget()
      var index = UInt16(head)
      for _ in 0..<record.count {
        free[freeCount] = index
        freeCount += 1
        index = links[Int(index)]
      }
      return record.unused
    }
    return nil
  }

  public mutating func restart() {
    precondition(heads == 0)
    let byteCount = Self.byteCount(size: size)
    descriptors.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    nextFree = 0
    oldest = 0
    batch = UsedBatch()
    nextAvailable = 0
    published = 0
    notified = 0
    nextUsed = 0
    broken = nil
    disarm()
  }
}
