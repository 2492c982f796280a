/// Which queue a frame goes to (82574 datasheet, 7.1.11): the Toeplitz hash of addresses and ports picks one of the 128
/// entries of the redirection table.
enum ReceiveSideScaling {
  /// MRQC's bits for what is hashed, and how the descriptor's RSS type says what was.
  private enum Field {
    static let tcpIPv4: UInt32 = 1 << 16
    static let ipv4: UInt32 = 1 << 17
    static let tcpIPv6: UInt32 = 1 << 18
    static let ipv6Extended: UInt32 = 1 << 19
    static let ipv6: UInt32 = 1 << 20
  }

  /// - Parameter key: 40 bytes.
  /// - Returns: the hash and the RSS type; type 0 where nothing of the frame is to be hashed.
  static func hash(
    _ frame: [UInt8], _ headers: PacketHeaders?, mrqc: UInt32, key: [UInt8]
  ) -> (value: UInt32, type: UInt32) {
    guard let headers else { return (0, 0) }
    let addresses = Array(frame[headers.addresses])
    let ports = headers.isTCP ? Array(frame[headers.transport..<headers.transport + 4]) : []
    if headers.isIPv6 {
      if headers.isTCP && mrqc & Field.tcpIPv6 != 0 { return (toeplitz(addresses + ports, key), 3) }
      if mrqc & Field.ipv6Extended != 0 { return (toeplitz(addresses, key), 4) }
      if mrqc & Field.ipv6 != 0 { return (toeplitz(addresses, key), 5) }
    } else {
      if headers.isTCP && mrqc & Field.tcpIPv4 != 0 { return (toeplitz(addresses + ports, key), 1) }
      if mrqc & Field.ipv4 != 0 { return (toeplitz(addresses, key), 2) }
    }
    return (0, 0)
  }

  /// For each bit of the input that is set, the 32 bits of the key that begin at its place.
  static func toeplitz(_ input: [UInt8], _ key: [UInt8]) -> UInt32 {
    var result: UInt32 = 0
    var window = key.prefix(4).reduce(0 as UInt32) { $0 << 8 | UInt32($1) }
    for (index, byte) in input.enumerated() {
      let next = index + 4 < key.count ? key[index + 4] : 0
      for bit in (0..<8).reversed() {
        if byte >> UInt8(bit) & 1 != 0 { result ^= window }
        window = window << 1 | UInt32(next >> UInt8(bit) & 1)
      }
    }
    return result
  }
}
