/// Reads bytes one after the other, each once and none behind the end.
struct HeaderReader {
  // Invariant: `byteCount` bytes can be read from `start` on; `offset` is at most `byteCount`.
  private let start: UnsafeRawPointer
  private let byteCount: Int
  private(set) var offset = 0

  @inline(__always)
  init(_ start: UnsafeRawPointer, _ byteCount: Int) {
    self.start = start
    self.byteCount = max(0, byteCount)
  }

  /// Goes on in the middle, or where that is behind the end, at the end.
  init(_ start: UnsafeRawPointer, _ byteCount: Int, at offset: Int) {
    self.init(start, byteCount)
    self.offset = min(max(0, offset), self.byteCount)
  }

  @inline(__always)
  func has(_ count: Int) -> Bool { byteCount &- offset >= count }

  /// The next bytes, or nil where there are fewer.
  /// - Parameter count: not negative.
  @inline(__always)
  mutating func take(_ count: Int) -> HeaderBytes? {
    precondition(count >= 0)
    guard has(count) else { return nil }
    defer { offset &+= count }
    return HeaderBytes(start: start + offset, count: count)
  }

  @inline(__always)
  mutating func skip(_ count: Int) -> Bool { take(count) != nil }
}

/// Bytes that are there, in network order. Each is read once at most.
struct HeaderBytes {
  // Invariant: `count` bytes can be read from `start` on.
  fileprivate let start: UnsafeRawPointer
  let count: Int

  @inline(__always)
  func number8(_ offset: Int) -> UInt8 {
    precondition(offset >= 0 && offset < count)
    return start.load(fromByteOffset: offset, as: UInt8.self)
  }

  @inline(__always)
  func number16(_ offset: Int) -> UInt16 {
    precondition(offset >= 0 && offset + 2 <= count)
    return UInt16(bigEndian: start.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  @inline(__always)
  func number32(_ offset: Int) -> UInt32 {
    precondition(offset >= 0 && offset + 4 <= count)
    return UInt32(bigEndian: start.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  @inline(__always)
  func number64(_ offset: Int) -> UInt64 {
    precondition(offset >= 0 && offset + 8 <= count)
    return UInt64(bigEndian: start.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  @inline(__always)
  func number48(_ offset: Int) -> UInt64 {
    UInt64(number32(offset)) &<< 16 | UInt64(number16(offset + 4))
  }

  @inline(__always)
  func ipv4(_ offset: Int) -> NetworkAddress { NetworkAddress(ipv4: number32(offset)) }

  @inline(__always)
  func ipv6(_ offset: Int) -> NetworkAddress {
    NetworkAddress(ipv6High: number64(offset), low: number64(offset + 8))
  }
}
