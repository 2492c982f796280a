/// Frames for tests, and checksums worked out apart from the model's.

func frame(
  to destination: [UInt8] = RawDriver.macAddress, bytes: Int = 100, filler: UInt8 = 1
) -> [UInt8] {
  destination + [2, 0, 0, 0, 0, 9, 0x88, 0xb5]
    + (0..<bytes - 14).map { UInt8(truncatingIfNeeded: $0) &+ filler }
}

func onesSum(_ bytes: [UInt8], _ start: Int = 0) -> Int {
  var sum = start
  for (index, byte) in bytes.enumerated() { sum += Int(byte) << (index % 2 == 0 ? 8 : 0) }
  while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
  return sum
}

func big(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)] }

/// A packet of IPv4 or IPv6 with TCP or UDP inside, its checksums right unless said otherwise.
struct IPFrame {
  var isIPv6 = false
  var isUDP = false
  var source: [UInt8] = [10, 0, 0, 1]
  var target: [UInt8] = [10, 0, 0, 2]
  var ports = (1234, 80)
  var sequence = 0x1000_0000
  var flags: UInt8 = 0x18
  var identification = 7
  var payload: [UInt8] = Array("hello, device".utf8)

  static func ipv6(isUDP: Bool = false, payload: [UInt8] = Array("hello".utf8)) -> IPFrame {
    IPFrame(
      isIPv6: true, isUDP: isUDP, source: [0xfe, 0x80] + [UInt8](repeating: 0, count: 13) + [1],
      target: [0xfe, 0x80] + [UInt8](repeating: 0, count: 13) + [2], payload: payload)
  }

  var ipBytes: Int { isIPv6 ? 40 : 20 }
  var transportBytes: Int { isUDP ? 8 : 20 }
  var transport: Int { 14 + ipBytes }
  /// Offset of the checksum in the frame.
  var checksumAt: Int { transport + (isUDP ? 6 : 16) }
  var headerBytes: Int { transport + transportBytes }

  func pseudoSum(_ length: Int) -> Int {
    onesSum(source + target, (isUDP ? 17 : 6) + length)
  }

  private func transportHeader(_ checksum: Int) -> [UInt8] {
    if isUDP {
      return big(ports.0) + big(ports.1) + big(8 + payload.count) + big(checksum)
    }
    return big(ports.0) + big(ports.1) + big(sequence >> 16) + big(sequence) + big(0) + big(0)
      + [0x50, flags] + big(0xffff) + big(checksum) + big(0)
  }

  private func ipHeader(_ checksum: Int) -> [UInt8] {
    let length = transportBytes + payload.count
    let number: UInt8 = isUDP ? 17 : 6
    if isIPv6 { return [0x60, 0, 0, 0] + big(length) + [number, 64] + source + target }
    return [0x45, 0] + big(20 + length) + big(identification) + [0, 0, 64, number] + big(checksum)
      + source + target
  }

  /// The frame with these checksums, or with right ones.
  func bytes(ipChecksum: Int? = nil, checksum: Int? = nil) -> [UInt8] {
    let length = transportBytes + payload.count
    let right = 0xffff - onesSum(transportHeader(0) + payload, pseudoSum(length))
    let rightIP = 0xffff - onesSum(ipHeader(0))
    return RawDriver.macAddress + [2, 0, 0, 0, 0, 9] + (isIPv6 ? [0x86, 0xdd] : [0x08, 0x00])
      + ipHeader(ipChecksum ?? rightIP) + transportHeader(checksum ?? right) + payload
  }
}
