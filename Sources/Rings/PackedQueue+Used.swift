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
    while taken < count {
      let descriptor = ring + place &* 16
      if acquire_load16(descriptor + 14) & Self.bothMarks != marks { break }
      // Also without the write flag: devices in the field leave it out (2.8.4), and it is checked all the same.
      let word = relaxed_load64(descriptor + 8)
      let id = Int(UInt16(truncatingIfNeeded: word &>> 32))
      let length = UInt32(truncatingIfNeeded: word)
      if id >= size {
        _ = fail(.idOutOfRange(id: UInt32(id), size: size))
        break
      }
      let record = records[id]
      if record.count == 0 {
        _ = fail(.idNotOutstanding(id: UInt32(id)))
        break
      }
      guard let written = record.accepts(length) else {
        _ = fail(.lengthBeyondBuffer(id: UInt32(id), length: length, posted: record.writable))
        break
      }
      records[id].count = 0
      ids[taken] = UInt16(truncatingIfNeeded: id)
      slots[taken] = record.slot(length: written)
      freed &+= Int(record.count)
      Self.skip(Int(record.count), &place, &marks, size)
      taken &+= 1
    }
    freeCount = freed
    nextUsed = place
    usedMarks = marks
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
        if id == place && record.count != 0 {
          guard let accepted = record.accepts(length) else {
            _ = fail(.lengthBeyondBuffer(id: UInt32(id), length: length, posted: record.writable))
            break
          }
          written = accepted
        } else {
          if !beginBatch(id, length, from: place, limit: heads &- taken) { break }
          batch.left &-= 1
        }
      } else {
        batch.left &-= 1
        if batch.left == 0 { written = batch.lastLength }
      }
      records[place].count = 0
      slots[taken] = record.slot(length: written)
      freed &+= Int(record.count)
      Self.skip(Int(record.count), &place, &marks, size)
      taken &+= 1
    }
    freeCount = freed
    nextUsed = place
    usedMarks = marks
    return taken
  }

  /// The device names a chain that is not the oldest one.
  /// - Parameter limit: chains that it holds.
  @inlinable @inline(never)
  mutating func beginBatch(_ id: Int, _ length: UInt32, from oldest: Int, limit: Int) -> Bool {
    if id >= size {
      _ = fail(.idOutOfRange(id: UInt32(id), size: size))
      return false
    }
    let record = records[id]
    if record.count == 0 {
      _ = fail(.idNotOutstanding(id: UInt32(id)))
      return false
    }
    var place = oldest
    var chains = 1
    while place != id {
      place &+= Int(records[place].count)
      if place >= size { place &-= size }
      chains &+= 1
      if chains > limit {
        _ = fail(.outOfOrder(id: UInt32(id), expected: UInt32(oldest)))
        return false
      }
    }
    guard let written = record.accepts(length) else {
      _ = fail(.lengthBeyondBuffer(id: UInt32(id), length: length, posted: record.writable))
      return false
    }
    batch.left = chains
    batch.lastLength = written
    return true
  }

  /// Past the descriptors of a chain, of which the ring has as many.
  @inlinable @inline(__always)
  static func skip(_ count: Int, _ place: inout Int, _ marks: inout UInt16, _ size: Int) {
    place &+= count
    if place >= size {
      place &-= size
      marks ^= bothMarks
    }
  }

  public mutating func takeOutstanding() -> Descriptor? {
    if heads == 0 { return nil }
    for id in 0..<size where records[id].count != 0 {
      let record = records[id]
      records[id].count = 0
      freeIDs[size - heads] = UInt16(id)
      heads -= 1
      freeCount += Int(record.count)
      return record.slot(length: 0)
    }
    return nil
  }
}
