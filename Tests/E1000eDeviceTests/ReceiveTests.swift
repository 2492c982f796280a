import E1000eDevice
import EmulatedPCI
import Testing
import Wire

@Suite struct ReceiveTests {
  @Test(arguments: [false, true]) func aFrameReachesTheBuffer(extended: Bool) throws {
    let driver = try RawDriver()
    driver.isExtended = extended
    driver.start()
    let sent = frame(bytes: 200)
    driver.wire.arriving = [sent]
    driver.run()
    let received = try #require(driver.take())
    #expect(received.bytes == sent)
    #expect(received.isLast && received.errors == 0)
    #expect(driver.take() == nil)
    #expect(driver.read(0x2810) == 1)
    #expect(driver.sections == [])
    #expect(driver.device.iommu.faultCount == 0)
  }

  @Test(arguments: [false, true]) func theRingWraps(extended: Bool) throws {
    let driver = try RawDriver()
    driver.isExtended = extended
    driver.start()
    for round in 0..<100 {
      let sent = frame(bytes: 60 + round, filler: UInt8(round))
      driver.wire.arriving = [sent]
      driver.run()
      #expect(try #require(driver.take()).bytes == sent)
      driver.give(1)
    }
    #expect(driver.sections == [])
  }

  @Test(arguments: [false, true]) func aLongFrameSpansDescriptors(extended: Bool) throws {
    let driver = try RawDriver()
    driver.isExtended = extended
    driver.bufferBytes = 256
    driver.start()
    let sent = frame(bytes: 1000)
    driver.wire.arriving = [sent]
    driver.run()
    let pieces = (0..<4).compactMap { _ in driver.take() }
    #expect(pieces.flatMap(\.bytes) == sent)
    #expect(pieces.map(\.isLast) == [false, false, false, true])
    #expect(pieces.map(\.bytes.count) == [256, 256, 256, 232])
    #expect(driver.take() == nil)
  }

  @Test func aJumboFrameNeedsLongPackets() throws {
    let driver = try RawDriver()
    driver.start()
    let sent = frame(bytes: 9014)
    driver.wire.arriving = [sent]
    driver.run()
    #expect(driver.takeFrame() == nil)
    #expect(driver.read(0x40ac) == 1)

    driver.start(rctl: 1 << 26 | 1 << 5)
    driver.wire.arriving = [sent]
    driver.run()
    let received = try #require(driver.takeFrame())
    #expect(received.bytes == sent)
    #expect(received.descriptors == 5)
    driver.wire.arriving = [frame(bytes: 12000)]
    driver.run()
    #expect(driver.takeFrame() == nil)
  }

  /// A frame whose last descriptors come late is delivered as they come.
  @Test func aFrameWaitsForDescriptors() throws {
    let driver = try RawDriver()
    driver.bufferBytes = 256
    driver.start(filled: 2)
    let sent = frame(bytes: 1000)
    driver.wire.arriving = [sent]
    driver.run()
    let first = (0..<2).compactMap { _ in driver.take() }
    #expect(first.count == 2 && !first[1].isLast)
    driver.give(4)
    driver.run()
    let rest = (0..<2).compactMap { _ in driver.take() }
    #expect((first + rest).flatMap(\.bytes) == sent)
    #expect(rest.last?.isLast == true)
  }

  @Test func withoutDescriptorsFramesWaitAndThenAreMissed() throws {
    let driver = try RawDriver()
    driver.start(filled: 0)
    driver.write(0x00d0, 1 << 6)
    driver.wire.arriving = (0..<30).map { frame(bytes: 1000, filler: UInt8($0)) }
    driver.run()
    // 20 KiB of packet buffer hold 20 frames of 1000 bytes.
    #expect(driver.read(0x40a0) == 20)
    #expect(driver.read(0x4010) == 10)
    #expect(driver.read(0x00c0) & 1 << 6 != 0)
    driver.give(15)
    driver.run()
    for index in 0..<15 as Range<UInt8> {
      #expect(driver.takeFrame()?.bytes == frame(bytes: 1000, filler: index))
    }
    #expect(driver.device.counters.missedFrames == 10)
    #expect(driver.device.counters.receivedFrames == 15)
  }

  @Test func flowControlLeavesFramesOnTheWire() throws {
    let driver = try RawDriver()
    driver.start(filled: 0)
    driver.write(0x0000, 1 << 28 | 1 << 6 | 1)
    driver.write(0x2168, 8 << 10)
    driver.write(0x2160, 1 << 31 | 4 << 10)
    driver.wire.arriving = (0..<30).map { frame(bytes: 1000, filler: UInt8($0)) }
    var received: [[UInt8]] = []
    for _ in 0..<10 {
      driver.run()
      while let (bytes, _) = driver.takeFrame() { received.append(bytes) }
      driver.give(4)
    }
    #expect(received == (0..<30).map { frame(bytes: 1000, filler: UInt8($0)) })
    #expect(driver.read(0x4010) == 0)
    let (stopped, resumed) = (driver.read(0x4054), driver.read(0x404c))
    #expect(stopped >= 1 && resumed == stopped)
    #expect(driver.sections == [])
  }

  @Test func shortFramesArePaddedAndTheCRCIsTheRealOne() throws {
    let driver = try RawDriver()
    driver.start(rctl: 0)
    driver.wire.arriving = [frame(bytes: 42)]
    driver.run()
    let bytes = try #require(driver.take()).bytes
    #expect(bytes.count == 64)
    #expect(Array(bytes[..<42]) == frame(bytes: 42))
    #expect(bytes[42..<60].allSatisfy { $0 == 0 })
    // The CRC of a frame with its CRC leaves this remainder (IEEE 802.3).
    var crc: UInt32 = .max
    for byte in bytes {
      crc ^= UInt32(byte)
      for _ in 0..<8 { crc = crc >> 1 ^ (crc & 1 != 0 ? 0xedb8_8320 : 0) }
    }
    #expect(crc == 0xdebb_20e3)
  }

  @Test func theFilterChoosesByAddress() throws {
    let other: [UInt8] = [0x52, 0x54, 0, 0, 0, 1]
    let group: [UInt8] = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03]
    let all = [UInt8](repeating: 0xff, count: 6)
    // Bits 47:36 of the group's address: 0x030 of 0x0302.
    let cases: [(rctl: UInt32, set: (UInt64, UInt32)?, frames: [[UInt8]])] = [
      (0, nil, [RawDriver.macAddress]),
      (1 << 15, nil, [RawDriver.macAddress, all]),
      (1 << 3, nil, [RawDriver.macAddress, other]),
      (1 << 4, nil, [RawDriver.macAddress, group, all]),
      (0, (0x5200 + 4 * (0x030 >> 5), 1 << (0x030 & 31)), [RawDriver.macAddress, group]),
      (3 << 12, (0x5200 + 4 * (0x302 >> 5), 1 << (0x302 & 31)), [RawDriver.macAddress, group]),
    ]
    for (rctl, set, expected) in cases {
      let driver = try RawDriver()
      driver.start(rctl: rctl | 1 << 26)
      if let set { driver.write(set.0, set.1) }
      driver.wire.arriving = [RawDriver.macAddress, other, group, all].map { frame(to: $0) }
      driver.run()
      var got: [[UInt8]] = []
      while let received = driver.take() { got.append(Array(received.bytes.prefix(6))) }
      #expect(got == expected)
      #expect(driver.device.counters.filteredFrames == UInt64(4 - expected.count))
    }
  }

  @Test func aSecondAddressIsAccepted() throws {
    let driver = try RawDriver()
    driver.start()
    driver.write(0x5408, 0x0000_5452)
    driver.write(0x540c, 1 << 31 | 0x0100)
    driver.wire.arriving = [frame(to: [0x52, 0x54, 0, 0, 0, 1])]
    driver.run()
    #expect(driver.take() != nil)
  }

  @Test(arguments: [false, true]) func checksumsAreReported(extended: Bool) throws {
    let wrong = 0x1111
    // Frame, and the IPCS, TCPCS, UDPCS and IPE, TCPE that it must have.
    let cases: [(name: String, bytes: [UInt8], status: UInt32, errors: UInt32)] = [
      ("tcp4", IPFrame().bytes(), 0x60, 0),
      ("udp4", IPFrame(isUDP: true).bytes(), 0x70, 0),
      ("udp4 none", IPFrame(isUDP: true).bytes(checksum: 0), 0x40, 0),
      ("tcp4 wrong", IPFrame().bytes(checksum: wrong), 0x60, 0x20),
      ("ip wrong", IPFrame().bytes(ipChecksum: wrong), 0x60, 0x40),
      ("tcp6", IPFrame.ipv6().bytes(), 0x20, 0),
      ("udp6 wrong", IPFrame.ipv6(isUDP: true).bytes(checksum: wrong), 0x30, 0x20),
      ("not ip", frame(), 0, 0),
    ]
    let driver = try RawDriver()
    driver.isExtended = extended
    driver.start(rxcsum: 3 << 8)
    for (name, bytes, status, errors) in cases {
      driver.wire.arriving = [bytes]
      driver.run()
      let received = try #require(driver.take())
      #expect(received.status & 0x74 == status, "\(name)")
      #expect(received.errors == errors, "\(name)")
      driver.give(1)
    }
    #expect(driver.sections == [])
  }

  @Test func withoutRXCSUMTheDriverIsToldToIgnoreChecksums() throws {
    let driver = try RawDriver()
    driver.start()
    driver.wire.arriving = [IPFrame().bytes(checksum: 1)]
    driver.run()
    let received = try #require(driver.take())
    #expect(received.status & 0x74 == 0x04 && received.errors == 0)
  }

  @Test func aVLANTagIsTakenOut() throws {
    let driver = try RawDriver()
    driver.isExtended = true
    driver.start()
    driver.write(0x0000, 1 << 30 | 1 << 6 | 1)
    let plain = frame(bytes: 200)
    driver.wire.arriving = [Array(plain[..<12]) + [0x81, 0x00, 0x60, 0x05] + Array(plain[12...])]
    driver.run()
    let received = try #require(driver.take())
    #expect(received.bytes == plain)
    #expect(received.high >> 48 == 0x6005)
    #expect(received.status & 0x08 != 0)
  }

  @Test func damagedFramesAreDroppedOrMarked() throws {
    let driver = try RawDriver()
    driver.start()
    driver.device.damage(nextFrames: 1)
    driver.wire.arriving = [frame(), frame(filler: 2)]
    driver.run()
    #expect(driver.take()?.bytes == frame(filler: 2))
    #expect(driver.take() == nil)
    #expect(driver.read(0x4000) == 1)
    driver.write(0x0100, driver.read(0x0100) | 1 << 2)
    driver.device.damage(nextFrames: 1)
    driver.wire.arriving = [frame()]
    driver.run()
    #expect(driver.take()?.errors == 1)
  }

  @Test func nothingArrivesWithoutALink() throws {
    let driver = try RawDriver()
    driver.start()
    driver.device.setLink(up: false)
    #expect(driver.read(0x0008) & 2 == 0)
    driver.wire.arriving = [frame()]
    driver.run()
    #expect(driver.take() == nil)
    driver.device.setLink(up: true)
    driver.run()
    #expect(driver.read(0x0008) & 2 != 0)
    driver.wire.arriving = [frame()]
    driver.run()
    #expect(driver.take() != nil)
    #expect(driver.device.counters.unwantedFrames == 1)
  }
}
