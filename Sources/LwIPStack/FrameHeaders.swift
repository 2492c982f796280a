import Driver
import Memory

/// The headers of a frame that lwIP sends: Ethernet, IPv4 or IPv6, TCP or UDP, in one piece. No fragments.
struct FrameHeaders {
  private let bytes: UnsafeMutableRawBufferPointer
  private let isIPv6: Bool
  private let isTCP: Bool
  /// Where the transport header begins.
  private let start: Int

  /// - Parameter bytes: the frame's first piece.
  init?(_ bytes: UnsafeMutableRawBufferPointer) {
    guard bytes.count >= 34 else { return nil }
    let type = UInt16(bytes[12]) << 8 | UInt16(bytes[13])
    let transport: UInt8
    if type == 0x0800 {
      // A fragment's sum is not the packet's.
      if (UInt16(bytes[20]) << 8 | UInt16(bytes[21])) & 0x3fff != 0 { return nil }
      start = 14 + Int(bytes[14] & 15) * 4
      transport = bytes[23]
    } else if type == 0x86dd && bytes.count >= 54 {
      start = 54
      transport = bytes[20]
    } else {
      return nil
    }
    guard transport == 6 || transport == 17 else { return nil }
    isTCP = transport == 6
    isIPv6 = type == 0x86dd
    guard start + (isTCP ? 20 : 8) <= bytes.count else { return nil }
    self.bytes = bytes
  }

  /// Bytes of all headers of a TCP packet; nil for UDP.
  var tcpHeaderBytes: Int? { isTCP ? start + Int(bytes[start + 12] >> 4) * 4 : nil }

  /// Puts the pseudo-header's sum in place and says where the rest goes (virtio 1.2, 5.1.6.2).
  /// - Parameter total: the frame's bytes.
  func leaveChecksum(total: UInt32, tag: UInt16) -> Offload {
    let field = isTCP ? 16 : 6
    var sum = words(isIPv6 ? 22..<54 : 26..<34)
    sum += (isTCP ? 6 : 17) + total - UInt32(start)
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    bytes[start + field] = UInt8(sum >> 8)
    bytes[start + field + 1] = UInt8(truncatingIfNeeded: sum)
    return Offload(
      needsChecksum: true, checksumStart: UInt16(start), checksumOffset: UInt16(field), tag: tag)
  }

  private func words(_ range: Range<Int>) -> UInt32 {
    var sum: UInt32 = 0
    for at in stride(from: range.lowerBound, to: range.upperBound, by: 2) {
      sum += UInt32(bytes[at]) << 8 | UInt32(bytes[at + 1])
    }
    return sum
  }
}
