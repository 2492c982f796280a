import CLinux
import Memory
import Virtio

/// What the device has used (virtio 1.2, 2.8.22).
extension PackedQueue {
  @inlinable
  public mutating func takeUsed(into burst: inout Burst, limit: Int) throws(RingError) {
    if let broken { throw broken }
    let count = min(limit, burst.room)
    if count <= 0 { return }
    let taken =
      Order.isInOrder
      ? takeInOrder(count, to: burst.end) : takeAnyOrder(count, to: burst.end)
    burst.append(written: taken)
    heads &-= taken
    if taken == 0, let broken { throw broken }
  }

  /// One used descriptor for each chain, in any order.
  /// - Returns: how many are good, up to `count`.
  @inlinable @inline(__always)
  mutating func takeAnyOrder(_ count: Int, to slots: UnsafeMutablePointer<Descriptor>) -> Int {
    let (ring, records, size) = (descriptors, records, size)
    let ids = freeIDs + (size &- heads)
    var place = nextUsed
    var marks = usedMarks
    var freed = freeCount
    var taken = 0
    var violation: (id: Int, length: UInt32)?
    while taken < count {
      let descriptor = ring + place &* 16
      if acquire_load16(descriptor + 14) & Self.bothMarks != marks { break }
      // Also without the write flag: devices in the field leave it out (2.8.4), and it is checked all the same.
      let word = relaxed_load64(descriptor + 8)
      let id = Int(UInt16(truncatingIfNeeded: word &>> 32))
      let length = UInt32(truncatingIfNeeded: word)
      if id >= size || records[id].count == 0 || !records[id].allows(length) {
        violation = (id, length)
        break
      }
      let record = records[id]
      records[id].rest = 0
      ids[taken] = UInt16(truncatingIfNeeded: id)
      record.store(to: slots + taken, length: record.written(length))
      freed &+= record.count
      Self.skip(record.count, &place, &marks, size)
      taken &+= 1
    }
    freeCount = freed
    nextUsed = place
    usedMarks = marks
    if let violation { blame(violation.id, violation.length) }
    return taken
  }

  /// Chains from the oldest one on, whose first descriptor is the one due; a used descriptor that names a later chain
  /// stands for all up to that (2.8.8).
  /// - Returns: how many are good, up to `count`.
  @inlinable @inline(__always)
  mutating func takeInOrder(_ count: Int, to slots: UnsafeMutablePointer<Descriptor>) -> Int {
    let (ring, records, size) = (descriptors, records, size)
    var place = nextUsed
    var marks = usedMarks
    var freed = freeCount
    var taken = 0
    while taken < count {
      let record = records[place]
      var written = record.writable
      if batch.left == 0 {
        let descriptor = ring + place &* 16
        if acquire_load16(descriptor + 14) & Self.bothMarks != marks { break }
        // Also without the write flag: devices in the field leave it out (2.8.4), and it is checked all the same.
        let word = relaxed_load64(descriptor + 8)
        let id = Int(UInt16(truncatingIfNeeded: word &>> 32))
        let length = UInt32(truncatingIfNeeded: word)
        if id == place && record.count != 0 && record.allows(length) {
          written = record.written(length)
        } else {
          if !beginBatch(id, length, from: place, limit: heads &- taken) { break }
          batch.left &-= 1
        }
      } else {
        batch.left &-= 1
        if batch.left == 0 { written = batch.lastLength }
      }
      records[place].rest = 0
      record.store(to: slots + taken, length: written)
      freed &+= record.count
      Self.skip(record.count, &place, &marks, size)
      taken &+= 1
    }
    freeCount = freed
    nextUsed = place
    usedMarks = marks
    return taken
  }

  /// The device has named a chain that it does not hold, or written more than it may.
  @inlinable @inline(never)
  mutating func blame(_ id: Int, _ length: UInt32) {
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
  @inlinable @inline(never)
  mutating func beginBatch(_ id: Int, _ length: UInt32, from oldest: Int, limit: Int) -> Bool {
    if id >= size || records[id].count == 0 || !records[id].allows(length) {
      blame(id, length)
      return false
    }
    var place = oldest
    var chains = 1
    while place != id {
      place &+= records[place].count
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

  /// Past the descriptors of a chain, of which the ring has as many.
  @inlinable @inline(__always)
  static func skip(_ count: Int, _ place: inout Int, _ marks: inout UInt16, _ size: Int) {
    place &+= count
    if _slowPath(place >= size) {
      place &-= size
      marks ^= bothMarks
    }
  }

  public mutating func takeOutstanding() -> Descriptor? {
    if heads == 0 { return nil }
    for id in 0..<size where records[id].count != 0 {
      let record = records[id]
      records[id].rest = 0
      freeIDs[size - heads] = UInt16(id)
      heads -= 1
      freeCount += record.count
      return record.unused
    }
    return nil
  }
}
