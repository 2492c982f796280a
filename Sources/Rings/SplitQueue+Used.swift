import CLinux
import Memory

/// What the device has used (virtio 1.2, 2.7.8).
extension SplitQueue {
  @inlinable
  public mutating func takeUsed(into burst: inout Burst, limit: Int) throws(RingError) {
    if let broken { throw broken }
    let index = acquire_load16(used + 2)
    let ready = Int(index &- nextUsed)
    if ready > heads {
      let error = RingError.indexJump(from: nextUsed, to: index, outstanding: heads)
      broken = error
      throw error
    }
    let count = min(min(ready, limit), burst.room)
    if count <= 0 { return }
    let taken =
      Order.isInOrder
      ? takeInOrder(count, ready: ready, to: burst.end) : takeAnyOrder(count, to: burst.end)
    burst.append(written: taken)
    nextUsed &+= UInt16(truncatingIfNeeded: taken)
    heads &-= taken
    if taken == 0, let broken { throw broken }
  }

  /// One used element for each chain, in any order.
  /// - Returns: how many are good, up to `count`.
  @inlinable @inline(__always)
  mutating func takeAnyOrder(_ count: Int, to slots: UnsafeMutablePointer<Descriptor>) -> Int {
    let (elements, records, links, free, mask) = (used + 4, records, links, free, mask)
    var freed = freeCount
    var index = nextUsed
    var taken = 0
    var violation: (id: UInt32, length: UInt32)?
    while taken < count {
      let element = elements + Int(index & mask) &* 8
      let id = relaxed_load32(element)
      let length = relaxed_load32(element + 4)
      let head = Int(id)
      if id > UInt32(mask) || records[head].count == 0 || !records[head].allows(length) {
        violation = (id, length)
        break
      }
      let record = records[head]
      records[head].rest = 0
      free[freed] = UInt16(truncatingIfNeeded: id)
      freed &+= 1
      var left = record.count &- 1
      var last = head
      while left > 0 {
        free[freed] = links[last]
        last = Int(links[last])
        freed &+= 1
        left &-= 1
      }
      record.store(to: slots + taken, length: record.written(length))
      index &+= 1
      taken &+= 1
    }
    freeCount = freed
    if let violation { blame(violation.id, violation.length) }
    return taken
  }

  /// Chains from the oldest one on; a used element that names a later one stands for all up to that (2.7.9).
  /// - Returns: how many are good, up to `count`.
  @inlinable @inline(__always)
  mutating func takeInOrder(
    _ count: Int, ready: Int, to slots: UnsafeMutablePointer<Descriptor>
  ) -> Int {
    let (elements, records, mask) = (used + 4, records, mask)
    var freed = freeCount
    var index = nextUsed
    var head = oldest
    var taken = 0
    while taken < count {
      let record = records[Int(head)]
      var written = record.writable
      if batch.left == 0 {
        let element = elements + Int(index & mask) &* 8
        let id = relaxed_load32(element)
        let length = relaxed_load32(element + 4)
        if id == UInt32(head) && record.allows(length) {
          written = record.written(length)
        } else {
          if !beginBatch(id, length, from: head, limit: ready &- taken) { break }
          batch.left &-= 1
        }
      } else {
        batch.left &-= 1
        if batch.left == 0 { written = batch.lastLength }
      }
      records[Int(head)].rest = 0
      head = (head &+ UInt16(truncatingIfNeeded: record.count)) & mask
      freed &+= record.count
      record.store(to: slots + taken, length: written)
      index &+= 1
      taken &+= 1
    }
    freeCount = freed
    oldest = head
    return taken
  }

  /// The device has named a chain that it does not hold, or written more than it may.
  @inlinable @inline(never)
  mutating func blame(_ id: UInt32, _ length: UInt32) {
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
  @inlinable @inline(never)
  mutating func beginBatch(_ id: UInt32, _ length: UInt32, from oldest: UInt16, limit: Int) -> Bool
  {
    if id > UInt32(mask) || records[Int(id)].count == 0 || !records[Int(id)].allows(length) {
      blame(id, length)
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
      records[head].rest = 0
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
