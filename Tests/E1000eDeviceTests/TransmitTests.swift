import E1000eDevice
import EmulatedPCI
import Testing
import Wire

@Suite struct TransmitTests {
  @Test func aLegacyFrameReachesTheWire() throws {
    let driver = try RawDriver()
    driver.start()
    let sent = frame(bytes: 300)
    driver.sendLegacy(sent)
    driver.run()
    #expect(driver.wire.sent.map(\.frame) == [sent])
    #expect(driver.transmitDescriptor(0, 0).high >> 32 & 1 == 1)
    #expect(driver.read(0x3810) == 1)
    #expect(driver.sections == [])
  }

  @Test func anExtendedFrameOfThreeBuffersReachesTheWire() throws {
    let driver = try RawDriver()
    driver.start()
    let sent = frame(bytes: 300)
    let at = driver.place(sent)
    driver.put(at, 100 | RawDriver.data)
    driver.put(at + 100, 50 | RawDriver.data)
    driver.put(at + 150, 150 | RawDriver.data | RawDriver.whole)
    driver.ring()
    driver.run()
    #expect(driver.wire.sent.map(\.frame) == [sent])
    #expect((0..<3).map { driver.transmitDescriptor(0, $0).high >> 32 & 1 } == [0, 0, 1])
    #expect(driver.sections == [])
  }

  @Test func theRingWrapsOnBothQueues() throws {
    let driver = try RawDriver()
    driver.start()
    for round in 0..<50 {
      driver.sendLegacy(frame(filler: UInt8(round)), queue: round % 2)
      driver.run()
      #expect(driver.wire.sent.last?.frame == frame(filler: UInt8(round)))
    }
    #expect(driver.wire.sent.count == 50)
    #expect(driver.sections == [])
  }

  @Test func shortFramesArePadded() throws {
    let driver = try RawDriver()
    driver.start()
    driver.sendLegacy(frame(bytes: 20))
    driver.run()
    #expect(
      driver.wire.sent.first?.frame == frame(bytes: 20) + [UInt8](repeating: 0, count: 40))
  }

  @Test func aPacketWaitsForItsEnd() throws {
    let driver = try RawDriver()
    driver.start()
    let sent = frame(bytes: 200)
    let at = driver.place(sent)
    driver.put(at, 100 | RawDriver.data)
    driver.ring()
    driver.run()
    #expect(driver.wire.sent.isEmpty)
    driver.put(at + 100, 100 | RawDriver.data | RawDriver.whole)
    driver.ring()
    driver.run()
    #expect(driver.wire.sent.map(\.frame) == [sent])
  }

  @Test func theLegacyDescriptorInsertsAChecksum() throws {
    let driver = try RawDriver()
    driver.start()
    let packet = IPFrame(payload: Array("odd number of bytes".utf8))
    let partial = packet.bytes(checksum: packet.pseudoSum(20 + packet.payload.count))
    driver.put(
      driver.place(partial),
      UInt64(partial.count) | UInt64(packet.checksumAt) << 16 | UInt64(packet.transport) << 40
        | RawDriver.whole | 1 << 26)
    driver.ring()
    driver.run()
    // The padding of 60 bytes does not touch this frame.
    #expect(driver.wire.sent.map(\.frame) == [packet.bytes()])
  }

  @Test(arguments: [false, true], [false, true])
  func aContextInsertsChecksums(ipv6: Bool, udp: Bool) throws {
    let driver = try RawDriver()
    driver.start()
    var packet = ipv6 ? IPFrame.ipv6(isUDP: udp) : IPFrame(isUDP: udp)
    packet.payload = (0..<201).map { UInt8($0) }
    let length = packet.transportBytes + packet.payload.count
    let partial = packet.bytes(ipChecksum: 0, checksum: packet.pseudoSum(length))
    driver.putContext(packet)
    let options: UInt64 = ipv6 ? 2 : 3
    driver.put(
      driver.place(partial),
      UInt64(partial.count) | RawDriver.data | RawDriver.whole | options << 40)
    driver.ring()
    driver.run()
    #expect(driver.wire.sent.map(\.frame) == [packet.bytes()])
    #expect(driver.sections == [])
  }

  @Test(arguments: [false, true]) func aLargePacketIsSegmented(ipv6: Bool) throws {
    let driver = try RawDriver()
    driver.start()
    var packet = ipv6 ? IPFrame.ipv6() : IPFrame()
    packet.flags = 0x19
    packet.identification = 0xffff
    packet.sequence = 0xffff_fc00
    packet.payload = (0..<2500).map { UInt8(truncatingIfNeeded: $0 / 7) }
    let partial = packet.bytes(ipChecksum: 0, checksum: packet.pseudoSum(0))
    driver.putContext(packet, segmentBytes: 1000)
    // TSE and IFCS: the first descriptor's count.
    let segmentation = RawDriver.data | 1 << 25 | 1 << 26 | (ipv6 ? 2 : 3) << 40
    let at = driver.place(partial)
    driver.put(at, UInt64(packet.headerBytes) | segmentation)
    driver.put(
      at + UInt64(packet.headerBytes), 2500 | segmentation | RawDriver.whole)
    driver.ring()
    driver.run()

    var expected: [[UInt8]] = []
    for (index, start) in [0, 1000, 2000].enumerated() {
      var segment = packet
      segment.payload = Array(packet.payload[start..<min(start + 1000, 2500)])
      segment.identification = (packet.identification + index) & 0xffff
      segment.sequence = (packet.sequence + start) & 0xffff_ffff
      segment.flags = index == 2 ? 0x19 : 0x10
      expected.append(segment.bytes())
    }
    #expect(driver.wire.sent.map(\.frame) == expected)
    #expect(driver.read(0x40f8) == 1)
    #expect(driver.read(0x4080) == 3)
    #expect(driver.sections == [])
  }

  @Test func aVLANTagIsPutIn() throws {
    let driver = try RawDriver()
    driver.start()
    driver.write(0x0000, 1 << 30 | 1 << 6 | 1)
    let plain = frame(bytes: 100)
    driver.sendLegacy(plain, command: RawDriver.whole | 1 << 30 | 0x6005 << 48)
    driver.run()
    #expect(
      driver.wire.sent.map(\.frame) == [
        Array(plain[..<12]) + [0x81, 0x00, 0x60, 0x05] + Array(plain[12...])
      ])
  }

  @Test func jumboFramesGoOut() throws {
    let driver = try RawDriver()
    driver.start()
    driver.sendLegacy(frame(bytes: 9014))
    driver.run()
    #expect(driver.wire.sent.map(\.frame) == [frame(bytes: 9014)])
    #expect(driver.sections == [])
  }

  @Test func withoutALinkDescriptorsStay() throws {
    let driver = try RawDriver()
    driver.start()
    driver.device.setLink(up: false)
    driver.sendLegacy(frame())
    driver.run()
    #expect(driver.read(0x3810) == 0 && driver.wire.sent.isEmpty)
    driver.device.setLink(up: true)
    driver.run()
    #expect(driver.wire.sent.count == 1)
  }

  @Test func macLoopbackReturnsFrames() throws {
    let driver = try RawDriver()
    driver.start(rctl: 1 << 26 | 1 << 6)
    driver.sendLegacy(frame())
    driver.run()
    #expect(driver.wire.sent.isEmpty)
    #expect(driver.take()?.bytes == frame())
  }
}

extension RawDriver {
  /// A context for the packet's checksums, and for segmentation where that is asked for.
  func putContext(_ packet: IPFrame, segmentBytes: Int = 0, queue: Int = 0) {
    let low =
      14 | 24 << 8 | UInt64(packet.transport - 1) << 16 | UInt64(packet.transport) << 32
      | UInt64(packet.checksumAt) << 40
    var high: UInt64 = 1 << 29
    if !packet.isUDP { high |= 1 << 24 }
    if !packet.isIPv6 { high |= 1 << 25 }
    if segmentBytes > 0 {
      high |=
        UInt64(packet.payload.count) | 1 << 26 | UInt64(packet.headerBytes) << 40
        | UInt64(segmentBytes) << 48
    }
    put(low, high, queue)
  }
}
