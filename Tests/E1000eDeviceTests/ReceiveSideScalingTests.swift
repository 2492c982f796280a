import E1000eDevice
import EmulatedPCI
import Testing
import Wire

/// The verification suite of the RSS specification: key, addresses, ports, hashes.
@Suite struct ReceiveSideScalingTests {
  static let key: [UInt8] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
  ]

  private func start(_ mrqc: UInt32, table: (Int) -> UInt8) throws -> RawDriver {
    let driver = try RawDriver()
    driver.isExtended = true
    driver.start(rxcsum: 1 << 13, mrqc: mrqc | 1)
    for word in 0..<10 {
      let bytes = Self.key[4 * word..<4 * word + 4]
      driver.write(
        0x5c80 + 4 * UInt64(word), bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) })
    }
    for word in 0..<32 {
      let bytes = (0..<4).map { table(4 * word + $0) }
      driver.write(
        0x5c00 + 4 * UInt64(word), bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) })
    }
    return driver
  }

  @Test func hashesAreThoseOfTheSpecification() throws {
    let tcp = IPFrame(
      source: [66, 9, 149, 187], target: [161, 142, 100, 80], ports: (2794, 1766))
    let six = IPFrame(
      isIPv6: true,
      source: [0x3f, 0xfe, 0x25, 0x01, 0x02, 0, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 7],
      target: [0x3f, 0xfe, 0x25, 0x01, 0x02, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1],
      ports: (2794, 1766))
    var udp = tcp
    udp.isUDP = true
    let cases: [(IPFrame, UInt64, UInt64)] = [
      (tcp, 0x51cc_c178, 1), (udp, 0x323e_8fc2, 2), (six, 0x4020_7d3d, 3),
    ]
    let driver = try start(7 << 16) { _ in 0 }
    for (packet, hash, type) in cases {
      driver.wire.arriving = [packet.bytes()]
      driver.run()
      let received = try #require(driver.take())
      #expect(received.low >> 32 == hash)
      #expect(received.low & 15 == type)
      driver.give(1)
    }
    #expect(driver.sections == [])
  }

  @Test func theTableSpreadsOverTwoQueues() throws {
    // Entry by entry in turn; the hash's low seven bits choose.
    let driver = try start(3 << 16) { $0 % 2 == 0 ? 0 : 0x80 }
    var counts = [0, 0]
    for port in 0..<64 {
      driver.wire.arriving = [IPFrame(ports: (1000 + port, 80)).bytes()]
      driver.run()
      for queue in 0..<2 {
        guard let received = driver.take(queue) else { continue }
        #expect(Int(received.low >> 32) % 2 == queue)
        #expect(Int(received.low >> 8) & 31 == queue)
        counts[queue] += 1
        driver.give(1, queue)
      }
    }
    #expect(counts[0] + counts[1] == 64)
    #expect(counts[0] > 10 && counts[1] > 10)
  }

  @Test func whatIsNotHashedGoesToTheFirstQueue() throws {
    let driver = try start(3 << 16) { _ in 0x80 }
    driver.wire.arriving = [frame(), IPFrame().bytes()]
    driver.run()
    #expect(driver.take(0)?.low == 0)
    #expect(driver.take(1) != nil)
  }
}
