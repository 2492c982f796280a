import Testing

@testable import RadioLink

@Suite struct FlowKeyTests {
  private func key(_ bytes: [UInt8]) -> FlowKey { bytes.withUnsafeBytes { FlowKey($0) } }

  private func ipv4(
    from source: UInt8 = 1, protocol number: UInt8 = 17, fragment: UInt16 = 0, port: UInt8 = 9,
    options: Int = 0
  ) -> [UInt8] {
    [UInt8](repeating: 0, count: 12) + [8, 0, UInt8(0x45 + options / 4), 0, 0, 40, 0, 0]
      + [UInt8(fragment >> 8), UInt8(fragment & 255), 64, number, 0, 0, 10, 0, 0, source]
      + [10, 0, 0, 2] + [UInt8](repeating: 7, count: options) + [0, port, 0, 53, 0, 0, 0, 0]
  }

  private func ipv6(from source: UInt8 = 1, next: UInt8 = 6, port: UInt8 = 9) -> [UInt8] {
    [UInt8](repeating: 0, count: 12) + [0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, next, 64]
      + [UInt8](repeating: 0, count: 15) + [source] + [UInt8](repeating: 0, count: 15) + [2]
      + [0, port, 0, 80, 0, 0, 0, 0]
  }

  @Test func portsTellFlowsApartForTCPAndUDPOnly() {
    for number in [6, 17] as [UInt8] {
      #expect(key(ipv4(protocol: number)) == key(ipv4(protocol: number)))
      #expect(key(ipv4(protocol: number, port: 8)) != key(ipv4(protocol: number)))
      #expect(key(ipv6(next: number, port: 8)) != key(ipv6(next: number)))
    }
    #expect(key(ipv4(protocol: 6)) != key(ipv4(protocol: 17)))
    #expect(key(ipv4(protocol: 1, port: 8)) == key(ipv4(protocol: 47)))
    // Behind options and extension headers.
    #expect(key(ipv4(port: 8, options: 8)) != key(ipv4(options: 8)))
    #expect(key(ipv4(options: 8)) == key(ipv4()))
    #expect(key(ipv6(next: 44, port: 8)) == key(ipv6(next: 44)))
  }

  @Test func fragmentsGoByAddresses() {
    let first: UInt16 = 0x2000
    let last: UInt16 = 100
    #expect(key(ipv4(fragment: first, port: 8)) == key(ipv4(fragment: last)))
    #expect(key(ipv4(fragment: last)) != key(ipv4()))
    #expect(key(ipv4(from: 3, fragment: last)) != key(ipv4(fragment: last)))
    // "Do not fragment" is no fragment.
    #expect(key(ipv4(fragment: 0x4000)) == key(ipv4()))
  }

  @Test func addressesTellFlowsApart() {
    #expect(key(ipv4(from: 3)) != key(ipv4()))
    #expect(key(ipv6(from: 3)) != key(ipv6()))
    #expect(key(ipv4()).hash == key(ipv4()).hash)
  }

  /// However short a packet is, and whatever it says, it has a flow.
  @Test func anyBytesHaveAFlow() {
    for bytes in [ipv4(), ipv6(), ipv4(options: 40)] {
      for count in 0...bytes.count { _ = key(Array(bytes.prefix(count))) }
    }
    #expect(key([]) == key([UInt8](repeating: 1, count: 60)))
  }
}
