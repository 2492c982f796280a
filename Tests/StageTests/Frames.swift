import Testing

/// Frames that tests make, and checksums computed the plain way: every byte is looked at.
struct Frame {
  var transport: UInt8 = 17
  var isIPv6 = false
  var source: [UInt8] = [10, 0, 0, 5]
  var destination: [UInt8] = [203, 0, 113, 9]
  var sourcePort: UInt16 = 5000
  var destinationPort: UInt16 = 53
  var payload: [UInt8] = []
  var options: [UInt8] = []
  var tags: [UInt16] = []
  /// Flags and offset of a fragment, as IPv4 has them.
  var fragment: UInt16 = 0
  var identification: UInt16 = 0x1234
  /// Of TCP.
  var flags: UInt8 = 0x10
  /// Of ICMP.
  var messageType: UInt8 = 8
  /// Where the checksum field holds the sum of the pseudo-header alone.
  var isPartial = false
  /// A UDP checksum of 0.
  var hasNoChecksum = false

  static let station: [UInt8] = [2, 0, 0, 0, 0, 1]
  static let router: [UInt8] = [2, 0, 0, 0, 0, 99]

  var networkOffset: Int { 14 + 4 * tags.count }
  var transportOffset: Int { networkOffset + (isIPv6 ? 40 : 20 + options.count) }

  /// IPv6 addresses that differ in every word.
  static func ipv6(_ last: UInt8) -> [UInt8] {
    [0x20, 1, 0xd, 0xb8] + (4..<15).map { $0 * 17 } + [last]
  }

  var bytes: [UInt8] {
    var segment = header + payload
    let field = ChecksumPlace(transport)
    if let field, fragment & 0x1fff == 0, !hasNoChecksum, segment.count >= field.offset + 2 {
      let pseudo = field.hasPseudoHeader ? pseudoHeader(segment.count) : []
      let sum = isPartial ? Plain.sum(pseudo) : ~Plain.sum(pseudo + segment)
      let stored = sum == 0 && transport == 17 && !isPartial ? 0xffff : sum
      segment.replaceSubrange(field.offset..<field.offset + 2, with: Plain.bytes(stored))
    }
    var frame = Self.router + Self.station
    for tag in tags { frame += [0x81, 0] + Plain.bytes(tag) }
    frame += isIPv6 ? [0x86, 0xdd] : [8, 0]
    return frame + network(segment.count) + segment
  }

  private var header: [UInt8] {
    if fragment & 0x1fff != 0 { return [] }
    let ports = Plain.bytes(sourcePort) + Plain.bytes(destinationPort)
    switch transport {
    case 6:
      return ports + [0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0, 0, 0, 0]
    case 17: return ports + Plain.bytes(UInt16(8 + payload.count)) + [0, 0]
    case 1, 58: return [messageType, 0, 0, 0] + Plain.bytes(sourcePort) + [0, 1]
    default: return []
    }
  }

  func pseudoHeader(_ count: Int) -> [UInt8] {
    isIPv6
      ? source + destination + [0, 0] + Plain.bytes(UInt16(count)) + [0, 0, 0, transport]
      : source + destination + [0, transport] + Plain.bytes(UInt16(count))
  }

  private func network(_ count: Int) -> [UInt8] {
    if isIPv6 {
      return [0x60, 0, 0, 0] + Plain.bytes(UInt16(count)) + [transport, 64] + source + destination
    }
    let length = 20 + options.count + count
    var header =
      [UInt8(0x40 + 5 + options.count / 4), 0] + Plain.bytes(UInt16(length))
      + Plain.bytes(identification) + Plain.bytes(fragment) + [64, transport, 0, 0] + source
      + destination + options
    header.replaceSubrange(10..<12, with: Plain.bytes(~Plain.sum(header)))
    return header
  }
}

/// Where a transport protocol has its checksum.
struct ChecksumPlace {
  var offset: Int
  var hasPseudoHeader: Bool

  init?(_ transport: UInt8) {
    switch transport {
    case 6: (offset, hasPseudoHeader) = (16, true)
    case 17: (offset, hasPseudoHeader) = (6, true)
    case 1: (offset, hasPseudoHeader) = (2, false)
    case 58: (offset, hasPseudoHeader) = (2, true)
    default: return nil
    }
  }
}

/// The Internet checksum (RFC 1071), byte by byte.
enum Plain {
  static func sum(_ bytes: some Sequence<UInt8>) -> UInt16 {
    var sum: UInt32 = 0
    for (index, byte) in bytes.enumerated() {
      sum += index % 2 == 0 ? UInt32(byte) << 8 : UInt32(byte)
      if sum > 0xffff { sum -= 0xffff }
    }
    return UInt16(sum)
  }

  static func bytes(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xff)] }

  static func number(_ bytes: [UInt8], _ offset: Int) -> UInt16 {
    UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1])
  }

  /// What is wrong with the checksums of an IP packet that begins somewhere in a frame; empty where nothing is.
  static func problems(_ frame: [UInt8], at network: Int = 14) -> String {
    let isIPv6 = frame[network] >> 4 == 6
    let headerBytes = isIPv6 ? 40 : Int(frame[network] & 15) * 4
    let header = frame[network..<network + headerBytes]
    if !isIPv6 && sum(header) != 0xffff { return "IPv4 header" }
    let transport = frame[network + (isIPv6 ? 6 : 9)]
    let length =
      isIPv6
      ? Int(number(frame, network + 4)) : Int(number(frame, network + 2)) - headerBytes
    let segment = Array(frame[(network + headerBytes)...].prefix(length))
    let isFragment = !isIPv6 && number(frame, network + 6) & 0x3fff != 0
    guard let place = ChecksumPlace(transport), !isFragment else { return "" }
    if transport == 17 && !isIPv6 && number(segment, 6) == 0 { return "" }
    let addresses = header.suffix(from: network + (isIPv6 ? 8 : 12)).prefix(isIPv6 ? 32 : 8)
    let pseudo =
      place.hasPseudoHeader ? addresses + bytes(UInt16(transport)) + bytes(UInt16(length)) : []
    return sum(pseudo + segment) == 0xffff ? "" : "protocol \(transport)"
  }
}

/// `#expect` cannot look at calls of what cannot be copied: of these only the result is said.
func expect(_ holds: Bool, sourceLocation: SourceLocation = #_sourceLocation) {
  #expect(holds, sourceLocation: sourceLocation)
}
