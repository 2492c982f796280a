/// The Internet checksum (RFC 1071) and the Ethernet CRC (IEEE 802.3, 3.2.9).
enum Checksum {
  /// The one's complement sum of big-endian words, not inverted; an odd last byte counts as a high one.
  static func sum(_ bytes: ArraySlice<UInt8>, _ start: UInt32 = 0) -> UInt16 {
    var sum = UInt64(start)
    var index = bytes.startIndex
    while index < bytes.endIndex {
      let low = index + 1 < bytes.endIndex ? UInt64(bytes[index + 1]) : 0
      sum += UInt64(bytes[index]) << 8 | low
      index += 2
    }
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    return UInt16(sum)
  }

  /// The pseudo-header's sum (RFC 793, RFC 8200 section 8.1).
  static func pseudoHeader(_ addresses: ArraySlice<UInt8>, protocolNumber: UInt8, byteCount: Int)
    -> UInt32
  {
    UInt32(sum(addresses)) + UInt32(protocolNumber) + UInt32(byteCount >> 16)
      + UInt32(byteCount & 0xffff)
  }

  private static let table: [UInt32] = (0..<256).map { index in
    (0..<8).reduce(UInt32(index)) { crc, _ in crc >> 1 ^ (crc & 1 != 0 ? 0xedb8_8320 : 0) }
  }

  /// The frame check sequence of a frame, as it goes out: low byte first.
  static func crc(_ frame: [UInt8]) -> [UInt8] {
    var crc: UInt32 = .max
    for byte in frame { crc = crc >> 8 ^ table[Int(UInt8(truncatingIfNeeded: crc) ^ byte)] }
    return (0..<4).map { UInt8(truncatingIfNeeded: ~crc >> (8 * $0)) }
  }
}
