/// Reads little-endian values from bytes that a peer sent. Every read is checked: nil at the end, never a trap.
public struct ByteReader: Sendable {
  let bytes: [UInt8]
  public private(set) var position: Int

  public init(_ bytes: [UInt8], at position: Int = 0) {
    self.bytes = bytes
    self.position = max(0, min(position, bytes.count))
  }

  public var remaining: Int { bytes.count - position }

  private mutating func read(_ byteCount: Int) -> UInt64? {
    guard byteCount <= remaining else { return nil }
    var value: UInt64 = 0
    for index in 0..<byteCount { value |= UInt64(bytes[position + index]) << UInt64(8 * index) }
    position += byteCount
    return value
  }

  public mutating func read8() -> UInt8? { read(1).map { UInt8(truncatingIfNeeded: $0) } }
  public mutating func read16() -> UInt16? { read(2).map { UInt16(truncatingIfNeeded: $0) } }
  public mutating func read32() -> UInt32? { read(4).map { UInt32(truncatingIfNeeded: $0) } }
  public mutating func read64() -> UInt64? { read(8) }

  /// The next `count` bytes, or nil where fewer are left.
  public mutating func readBytes(_ count: Int) -> ArraySlice<UInt8>? {
    guard count >= 0, count <= remaining else { return nil }
    defer { position += count }
    return bytes[position..<position + count]
  }
}

/// Appends little-endian values to a message.
public struct ByteWriter: Sendable {
  public private(set) var bytes: [UInt8] = []

  public init(reserving byteCount: Int = 64) { bytes.reserveCapacity(byteCount) }

  private mutating func write(_ value: UInt64, _ byteCount: Int) {
    for index in 0..<byteCount {
      bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * index)))
    }
  }

  public mutating func write8(_ value: UInt8) { bytes.append(value) }
  public mutating func write16(_ value: UInt16) { write(UInt64(value), 2) }
  public mutating func write32(_ value: UInt32) { write(UInt64(value), 4) }
  public mutating func write64(_ value: UInt64) { write(value, 8) }
  public mutating func write(_ data: some Sequence<UInt8>) { bytes.append(contentsOf: data) }
}
