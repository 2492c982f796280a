import E1000eDevice
import EmulatedPCI
import Testing
import Wire

@Suite struct StatisticsTests {
  @Test func countersClearOnReading() throws {
    let driver = try RawDriver()
    driver.start()
    driver.wire.arriving = [
      frame(bytes: 60), frame(bytes: 200), frame(to: [UInt8](repeating: 0xff, count: 6)),
    ]
    driver.sendLegacy(frame(bytes: 500))
    driver.run()
    let expected: [(UInt64, UInt32)] = [
      (0x4074, 3), (0x4078, 1), (0x407c, 0), (0x405c, 1), (0x4060, 1), (0x4064, 1), (0x4080, 1),
      (0x40e4, 1), (0x40d0, 3), (0x40d4, 1),
    ]
    for (offset, value) in expected { #expect(driver.read(offset) == value) }
    for (offset, _) in expected { #expect(driver.read(offset) == 0) }
    // 64 + 204 + 104 bytes with CRC; the low half stays until the high one is read.
    #expect(driver.read(0x4088) == 372)
    #expect(driver.read(0x4088) == 372)
    #expect(driver.read(0x408c) == 0)
    #expect(driver.read(0x4088) == 0)
    #expect(driver.read(0x4090) == 504)
    #expect(driver.sections == [])
  }
}

@Suite struct FaultTests {
  private func check(_ driver: RawDriver, _ act: (RawDriver) -> Void) {
    act(driver)
    driver.run()
    #expect(driver.device.iommu.faultCount == 1)
    // The queue rests, and a reset brings it back.
    driver.wire.arriving = [frame()]
    driver.sendLegacy(frame())
    driver.run()
    #expect(driver.device.iommu.faultCount <= 2)
    driver.device.iommu.clearFaults()
    driver.wire.sent = []
    driver.memory.initializeMemory(as: UInt8.self, repeating: 0, count: 0x10000)
    driver.start()
    driver.wire.arriving = [frame(filler: 9)]
    driver.sendLegacy(frame(filler: 8))
    driver.run()
    #expect(driver.take()?.bytes == frame(filler: 9))
    #expect(driver.wire.sent.map(\.frame) == [frame(filler: 8)])
    #expect(driver.device.iommu.faultCount == 0)
  }

  @Test func aBufferThatIsNotMappedIsAFault() throws {
    let driver = try RawDriver()
    driver.start()
    check(driver) {
      $0.receiveRing(0).storeBytes(of: 0xdead_0000, as: UInt64.self)
      $0.wire.arriving = [frame()]
    }
    #expect(driver.sections == [])
  }

  @Test func aTransmitBufferThatWrapsIsAFault() throws {
    let driver = try RawDriver()
    driver.start()
    check(driver) {
      $0.put(.max - 10, 100 | RawDriver.whole)
      $0.ring()
    }
  }

  @Test func aRingThatIsNotMappedIsAFault() throws {
    let driver = try RawDriver()
    driver.start()
    check(driver) {
      $0.write(0x0100, 0)
      $0.write(0x2804, 0xffff_ffff)
      $0.write(0x0100, 1 << 1 | 1 << 26)
      $0.wire.arriving = [frame()]
    }
  }

  @Test func nothingMovesWithoutBusMastering() throws {
    let driver = try RawDriver()
    driver.start()
    driver.device.writeConfiguration(2, at: 4, byteCount: 2)
    driver.wire.arriving = [frame()]
    driver.run()
    #expect(driver.take() == nil)
    #expect(driver.device.iommu.faultCount == 1)
  }

  @Test func theMasterDisableBitStopsDMA() throws {
    let driver = try RawDriver()
    driver.start()
    driver.write(0x0000, 1 << 6 | 1 | 1 << 2)
    #expect(driver.read(0x0008) >> 19 & 1 == 0)
    driver.sendLegacy(frame())
    driver.run()
    #expect(driver.wire.sent.isEmpty)
  }

  @Test(arguments: [false, true], Malformation.allCases)
  func completionsGoWrong(extended: Bool, _ malformation: Malformation) throws {
    let driver = try RawDriver()
    driver.isExtended = extended
    driver.start(filled: 8)
    driver.device.malformReceive(malformation)
    driver.wire.arriving = [frame()]
    driver.run()
    func words(_ index: Int) -> (low: UInt64, high: UInt64) {
      let at = driver.receiveRing(0) + 16 * index
      return (at.load(as: UInt64.self), at.load(fromByteOffset: 8, as: UInt64.self))
    }
    let length = words(0).high >> (extended ? 32 : 0) & 0xffff
    let status = words(0).high >> (extended ? 0 : 32) & 0xff
    switch malformation {
    case .lengthBeyondBuffer: #expect(length == 2049)
    case .hugeLength: #expect(length == 65535)
    case .zeroLength: #expect(length == 0 && status & 3 == 3)
    case .withoutEndOfPacket: #expect(status & 3 == 1)
    case .descriptorNotGiven:
      #expect(status == 0)
      #expect(words(8).high >> (extended ? 0 : 32) & 3 == 3)
    case .allOnes: #expect(words(0).low == .max && words(0).high == .max)
    case .missing: #expect(status == 0)
    case .allErrors: #expect(words(0).high >> (extended ? 24 : 40) & 0xff == 0xf7)
    }
    // Only that one.
    driver.wire.arriving = [frame(filler: 3)]
    driver.run()
    #expect(words(1).high >> (extended ? 0 : 32) & 3 == 3)
    #expect(driver.sections == [])
  }

  @Test func aTransmitCompletionGoesMissing() throws {
    let driver = try RawDriver()
    driver.start()
    driver.device.malformTransmit(.missing)
    driver.sendLegacy(frame())
    driver.run()
    #expect(driver.wire.sent.count == 1)
    #expect(driver.transmitDescriptor(0, 0).high >> 32 & 1 == 0)
  }

  @Test func theHookSeesAndChangesEveryWriteBack() throws {
    let driver = try RawDriver()
    driver.start()
    var seen: [Int] = []
    driver.device.corrupt = { back in
      seen.append(back.index)
      back.length = 77
    }
    driver.wire.arriving = [frame(), frame()]
    driver.run()
    #expect(seen == [0, 1])
    #expect(driver.take()?.bytes.count == 77)
  }

  @Test func aStalledDeviceDoesNothing() throws {
    let driver = try RawDriver()
    driver.start()
    driver.device.isStalled = true
    driver.wire.arriving = [frame()]
    driver.sendLegacy(frame())
    #expect(!driver.device.step())
    #expect(driver.take() == nil && driver.wire.sent.isEmpty)
    driver.device.isStalled = false
    driver.run()
    #expect(driver.take() != nil && driver.wire.sent.count == 1)
  }

  @Test func aDeviceThatIsGoneReadsAsOnes() throws {
    let driver = try RawDriver()
    driver.start()
    driver.device.isGone = true
    #expect(driver.read(0x0008) == .max)
    driver.write(0x0000, 0)
    driver.device.isGone = false
    #expect(driver.read(0x0000) & 1 << 6 != 0)
  }

  @Test func workIsSeenBeforeSleep() throws {
    let driver = try RawDriver()
    driver.start(filled: 0)
    #expect(driver.device.prepareToSleep())
    driver.sendLegacy(frame())
    #expect(!driver.device.prepareToSleep())
    driver.run()
    #expect(driver.device.prepareToSleep())
    driver.wire.arriving = [frame()]
    driver.run()
    // A frame waits for a descriptor.
    #expect(driver.device.prepareToSleep())
    driver.give(1)
    #expect(!driver.device.prepareToSleep())
  }

  @Test func functionResetBringsBackPowerOn() throws {
    let driver = try RawDriver()
    driver.start()
    driver.device.reset()
    #expect(driver.read(0x0100) == 0)
    #expect(!driver.device.isRunning)
    #expect(driver.read(0x5200) != 0)
    #expect(driver.sections == [])
  }
}
