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
      throw fail(.indexJump(from: nextUsed, to: index, outstanding: heads))
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
    while taken < count {
      let element = elements + Int(index & mask) &* 8
      let id = relaxed_load32(element)
      let length = relaxed_load32(element + 4)
      if id > UInt32(mask) {
        _ = fail(.idOutOfRange(id: id, size: size))
        break
      }
      let head = Int(id)
      let record = records[head]
      if record.count == 0 {
        _ = fail(.idNotOutstanding(id: id))
        break
      }
      guard let written = record.accepts(length) else {
        _ = fail(.lengthBeyondBuffer(id: id, length: length, posted: record.writable))
        break
      }
      records[head].count = 0
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
      slots[taken] = record.slot(length: written)
      index &+= 1
      taken &+= 1
    }
    freeCount = freed
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
        if id == UInt32(head) {
          guard let accepted = record.accepts(length) else {
            _ = fail(.lengthBeyondBuffer(id: id, length: length, posted: record.writable))
            break
          }
          written = accepted
        } else {
          if !beginBatch(id, length, from: head, limit: ready &- taken) { break }
          batch.left &-= 1
        }
      } else {
        batch.left &-= 1
        if batch.left == 0 { written = batch.lastLength }
      }
      records[Int(head)].count = 0
      head = (head &+ record.count) & mask
      freed &+= Int(record.count)
      slots[taken] = record.slot(length: written)
      index &+= 1
      taken &+= 1
    }
    freeCount = freed
    oldest = head
    return taken
  }

  /// The device names a chain that is not the oldest one.
  /// - Parameter limit: chains that it has used, as its index says.
  @inlinable @inline(never)
  mutating func beginBatch(_ id: UInt32, _ length: UInt32, from oldest: UInt16, limit: Int) -> Bool
  {
    if id > UInt32(mask) {
      _ = fail(.idOutOfRange(id: id, size: size))
      return false
    }
    let record = records[Int(id)]
    if record.count == 0 {
      _ = fail(.idNotOutstanding(id: id))
      return false
    }
    var head = oldest
    var chains = 1
    while UInt32(head) != id {
      head = (head &+ records[Int(head)].count) & mask
      chains &+= 1
      if chains > limit {
        _ = fail(.outOfOrder(id: id, expected: UInt32(oldest)))
        return false
      }
    }
    guard let written = record.accepts(length) else {
      _ = fail(.lengthBeyondBuffer(id: id, length: length, posted: record.writable))
      return false
    }
    batch.left = chains
    batch.lastLength = written
    return true
  }

  public mutating func takeOutstanding() -> Descriptor? {
    if heads == 0 { return nil }
    for head in 0..<size where records[head].count != 0 {
      heads -= 1
      let record = records[head]
      records[head].count = 0
      var index = UInt16(head)
      for _ in 0..<record.count {
        free[freeCount] = index
        freeCount += 1
        index = links[Int(index)]
      }
      return record.slot(length: 0)
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
