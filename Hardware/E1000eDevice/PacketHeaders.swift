/// Where the headers of a frame are, as far as the device looks: Ethernet II with up to one 802.1Q tag, IPv4, IPv6
/// without extension headers, TCP, UDP.
struct PacketHeaders {
  static let tcp: UInt8 = 6
  static let udp: UInt8 = 17

  var isIPv6: Bool
  /// Offset of the IP header, and its bytes.
  var ip: Int
  var ipBytes: Int
  var protocolNumber: UInt8
  var isFragment: Bool
  /// Offset of what follows the IP header, and where the IP packet ends.
  var transport: Int
  var end: Int
  /// Both IP addresses, source first.
  var addresses: Range<Int>

  /// - Returns: nil for what is not IP, or is cut short.
  init?(_ frame: [UInt8]) {
    func word(_ at: Int) -> Int { Int(frame[at]) << 8 | Int(frame[at + 1]) }
    guard frame.count >= 14 else { return nil }
    var type = 12
    if word(type) == 0x8100 && frame.count >= 18 { type += 4 }
    ip = type + 2
    if word(type) == 0x0800, frame.count >= ip + 20, frame[ip] >> 4 == 4 {
      ipBytes = Int(frame[ip] & 15) * 4
      end = ip + word(ip + 2)
      protocolNumber = frame[ip + 9]
      isFragment = word(ip + 6) & 0x3fff != 0
      addresses = ip + 12..<ip + 20
      isIPv6 = false
    } else if word(type) == 0x86dd, frame.count >= ip + 40, frame[ip] >> 4 == 6 {
      ipBytes = 40
      end = ip + 40 + word(ip + 4)
      protocolNumber = frame[ip + 6]
      isFragment = false
      addresses = ip + 8..<ip + 40
      isIPv6 = true
    } else {
      return nil
    }
    transport = ip + ipBytes
    guard ipBytes >= 20, end <= frame.count, transport <= end else { return nil }
  }

  var isTCP: Bool { protocolNumber == Self.tcp && !isFragment && end - transport >= 20 }
  var isUDP: Bool { protocolNumber == Self.udp && !isFragment && end - transport >= 8 }

  func hasRightHeaderChecksum(_ frame: [UInt8]) -> Bool {
    Checksum.sum(frame[ip..<ip + ipBytes]) == 0xffff
  }

  /// - Returns: nil where the packet carries no checksum, or none that the device knows.
  func hasRightTransportChecksum(_ frame: [UInt8]) -> Bool? {
    guard isTCP || isUDP else { return nil }
    if isUDP && frame[transport + 6] == 0 && frame[transport + 7] == 0 { return nil }
    let pseudo = Checksum.pseudoHeader(
      frame[addresses], protocolNumber: protocolNumber, byteCount: end - transport)
    return Checksum.sum(frame[transport..<end], pseudo) == 0xffff
  }
}
