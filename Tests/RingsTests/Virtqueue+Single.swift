import Memory

@testable import Rings

/// One buffer at a time, for tests.
extension Virtqueue where Self: ~Copyable {
  mutating func addWritable(iova: UInt64, byteCount: UInt32, cookie: UInt64) {
    var burst = Burst(capacity: 1)
    let slot = Descriptor(segment: UInt32(cookie), length: byteCount, tag: 7)
    burst.append(slot)
    addWritable(burst, count: 1, base: iova &- slot.position)
  }

  mutating func addReadable(_ cookies: [UInt64], byteCount: UInt32 = 100) {
    let prefix = DMARange(
      address: UnsafeMutableRawPointer(bitPattern: 4096)!, iova: 0x5000, byteCount: 12)
    var chains = newChains()
    for cookie in cookies {
      let slot = Descriptor(segment: UInt32(cookie))
      chains.add(
        behind: prefix, iova: slot.position, byteCount: byteCount, place: cookie, tag: 9)
    }
    add(chains)
  }

  /// - Returns: nil where nothing has been used.
  mutating func takeUsed() throws(RingError) -> (cookie: UInt64, byteCount: UInt32)? {
    var burst = Burst(capacity: 1)
    try takeUsed(into: &burst, limit: 1)
    return burst.isEmpty ? nil : (UInt64(burst[0].segment), burst[0].length)
  }

  /// All that the device has used, and how it broke the ring.
  mutating func takeAll() -> (used: [(cookie: UInt64, byteCount: UInt32)], error: RingError?) {
    var used: [(cookie: UInt64, byteCount: UInt32)] = []
    do throws(RingError) {
      while let next = try takeUsed() { used.append(next) }
      return (used, nil)
    } catch {
      return (used, error)
    }
  }

  mutating func takeAllOutstanding() -> [UInt64] {
    var cookies: [UInt64] = []
    while let slot = takeOutstanding() { cookies.append(UInt64(slot.segment)) }
    return cookies
  }
}
