import E1000eDevice
import EmulatedPCI
import Testing
import Wire

@Suite struct PortTests {
  @Test func theFunctionIsAn82574() throws {
    let driver = try RawDriver()
    #expect(driver.device.readConfiguration(at: 0, byteCount: 4) == 0x10d3_8086)
    #expect(driver.device.bars[0] == 0x20000)
    #expect(driver.device.interrupts.vectorCount == 5)
    driver.device.writeConfiguration(.max, at: 0x10, byteCount: 4)
    #expect(driver.device.readConfiguration(at: 0x10, byteCount: 4) == 0xfffe_0000)
  }

  @Test func theEEPROMHoldsTheAddressAndItsChecksum() throws {
    let driver = try RawDriver()
    var words: [UInt16] = []
    for address in 0..<64 as Range<UInt32> {
      driver.write(0x14, address << 2 | 1)
      let value = driver.read(0x14)
      #expect(value & 2 != 0)
      words.append(UInt16(value >> 16))
    }
    #expect(words[0] == 0x5452 && words[1] == 0x1200 && words[2] == 0x5634)
    #expect(words.reduce(0, &+) == 0xbaba)
    #expect(driver.read(0x5400) == 0x1200_5452)
    #expect(driver.read(0x5404) == 0x8000_5634)
    #expect(driver.sections == [])
  }

  @Test func thePHYAnswersOnMDIC() throws {
    let driver = try RawDriver()
    func phy(_ register: UInt32) -> UInt32 {
      driver.write(0x20, 2 << 26 | 1 << 21 | register << 16)
      let value = driver.read(0x20)
      #expect(value >> 28 & 1 == 1 && value >> 30 & 1 == 0)
      return value & 0xffff
    }
    #expect(phy(2) == 0x0141)
    #expect(phy(3) == 0x0cb1)
    #expect(phy(1) & 0x24 == 0x24)
    // Restarting auto-negotiation takes the link away for two steps.
    driver.write(0x20, 1 << 26 | 1 << 21 | 0x1340)
    #expect(phy(0) == 0x1140)
    #expect(phy(1) & 0x24 == 0)
    driver.run()
    #expect(phy(1) & 0x24 == 0x24)
    #expect(driver.sections == [])
    driver.write(0x20, 2 << 26 | 2 << 21)
    #expect(driver.read(0x20) >> 30 & 1 == 1)
    #expect(driver.sections == ["10.2.2"])
  }

  @Test func resetTakesEverythingBackButThePHYAndTheTables() throws {
    let driver = try RawDriver()
    driver.start()
    driver.write(0x5200, 0x1234)
    driver.wire.arriving = [frame()]
    driver.run()
    driver.reset()
    #expect(driver.read(0x100) == 0 && driver.read(0x400) == 0)
    #expect(driver.read(0x2808) == 0 && driver.read(0x2818) == 0 && driver.read(0x2810) == 0)
    #expect(driver.read(0x4074) == 0)
    #expect(driver.read(0x5404) == 0x8000_5634)
    #expect(driver.sections == [])
  }

  @Test func anAccessBeforeTheResetIsOverIsRecorded() throws {
    let driver = try RawDriver()
    driver.write(0x0000, 1 << 26)
    driver.write(0x00d8, .max)
    #expect(driver.sections == ["10.2.2"])
  }
}
