import E1000eDevice
import EmulatedPCI
import Testing
import Wire

@Suite struct InterruptTests {
  static let rxq0: UInt32 = 1 << 20
  static let rxq1: UInt32 = 1 << 21
  static let txq0: UInt32 = 1 << 22
  static let other: UInt32 = 1 << 24
  static let lsc: UInt32 = 1 << 2

  private func start(auto: UInt32 = 0x1f << 20) throws -> RawDriver {
    let driver = try RawDriver()
    driver.start()
    driver.connect()
    driver.write(0x00dc, auto)
    _ = driver.read(0x00c0)
    return driver
  }

  @Test func eachCauseHasItsVector() throws {
    let driver = try start()
    driver.write(0x00d0, 0x1f << 20 | Self.lsc)
    driver.wire.arriving = [frame()]
    driver.run()
    #expect((0..<5).map(driver.interrupts) == [1, 0, 0, 0, 0])
    driver.sendLegacy(frame())
    driver.run()
    #expect((0..<5).map(driver.interrupts) == [0, 0, 1, 0, 0])
    driver.sendLegacy(frame(), queue: 1)
    driver.run()
    #expect((0..<5).map(driver.interrupts) == [0, 0, 0, 1, 0])
    driver.device.setLink(up: false)
    #expect((0..<5).map(driver.interrupts) == [0, 0, 0, 0, 1])
    #expect(driver.sections == [])
  }

  @Test func aVectorThatClearedItselfFiresAgainWhenUnmasked() throws {
    let driver = try start()
    driver.write(0x00d0, Self.rxq0)
    for _ in 0..<3 {
      driver.wire.arriving = [frame()]
      driver.run()
    }
    // EIAC cleared and masked it with the first message.
    #expect(driver.interrupts(0) == 1)
    #expect(driver.read(0x00d0) & Self.rxq0 == 0)
    driver.write(0x00d0, Self.rxq0)
    #expect(driver.interrupts(0) == 1)
    driver.write(0x00d0, Self.rxq0)
    #expect(driver.interrupts(0) == 0)
  }

  @Test func withoutAutoClearTheDriverAcknowledges() throws {
    let driver = try start(auto: 0)
    driver.write(0x00d0, Self.rxq0)
    driver.wire.arriving = [frame()]
    driver.run()
    driver.wire.arriving = [frame()]
    driver.run()
    #expect(driver.interrupts(0) == 1)
    driver.write(0x00c0, Self.rxq0)
    driver.wire.arriving = [frame()]
    driver.run()
    #expect(driver.interrupts(0) == 1)
  }

  @Test func otherNeedsTheCauseUnmaskedToo() throws {
    let driver = try start()
    driver.write(0x00d0, Self.other)
    driver.device.setLink(up: false)
    #expect(driver.interrupts(4) == 0)
    driver.write(0x00d0, Self.lsc)
    #expect(driver.interrupts(4) == 1)
  }

  @Test func throttlingSpacesMessagesByTime() throws {
    let driver = try start()
    // 64 intervals of 256 ns are four steps of 4096 ns.
    driver.write(0x00e8, 64)
    var fired: [Int] = []
    for step in 0..<12 {
      driver.write(0x00d0, Self.rxq0)
      driver.wire.arriving = [frame()]
      _ = driver.device.step()
      if driver.interrupts(0) > 0 { fired.append(step) }
      _ = driver.take()
      driver.give(1)
    }
    #expect(fired == [0, 4, 8])
  }

  @Test func aThrottledMessageIsNotForgotten() throws {
    let driver = try start()
    driver.write(0x00e8, 6400)
    for _ in 0..<2 {
      driver.write(0x00d0, Self.rxq0)
      driver.wire.arriving = [frame()]
      _ = driver.device.step()
    }
    #expect(driver.interrupts(0) == 1)
    #expect(!driver.device.prepareToSleep())
    driver.run()
    #expect(driver.interrupts(0) == 1)
    #expect(driver.device.prepareToSleep())
  }

  @Test func delayTimersWaitForMoreButNotForever() throws {
    let driver = try start(auto: 0)
    // RDTR of 12 steps, RADV of 20: a frame every 10 steps pushes the first out, not the second.
    driver.write(0x2820, 48)
    driver.write(0x282c, 80)
    driver.write(0x00d0, Self.rxq0)
    var fired: [Int] = []
    for step in 0..<40 {
      if step % 10 == 0 { driver.wire.arriving = [frame()] }
      _ = driver.device.step()
      if driver.interrupts(0) > 0 { fired.append(step) }
    }
    #expect(fired == [20])
  }

  @Test func transmitInterruptsWaitForTIDV() throws {
    let driver = try start()
    driver.write(0x3820, 40)
    driver.write(0x00d0, Self.txq0)
    driver.sendLegacy(frame(), command: RawDriver.whole | 1 << 31)
    _ = driver.device.step()
    #expect(driver.wire.sent.count == 1)
    #expect(driver.interrupts(2) == 0)
    driver.run()
    #expect(driver.interrupts(2) == 1)
  }

  @Test func fewFreeDescriptorsInterrupt() throws {
    let driver = try start()
    driver.write(0x00d0, 1 << 4)
    driver.wire.arriving = (0..<6).map { _ in frame() }
    driver.run()
    #expect(driver.read(0x00c0) & 1 << 4 == 0)
    driver.wire.arriving = [frame()]
    driver.run()
    // 15 given, 7 used: 8 of 16 are left.
    #expect(driver.read(0x00c0) & 1 << 4 != 0)
  }

  @Test func readingICRClearsItWhereAnInterruptIsAssertedOrNoneIsEnabled() throws {
    let driver = try start(auto: 0)
    driver.write(0x00c8, Self.lsc)
    #expect(driver.read(0x00c0) == Self.lsc)
    #expect(driver.read(0x00c0) == 0)
    driver.write(0x00d0, 1 << 9)
    driver.write(0x00c8, Self.lsc)
    #expect(driver.read(0x00c0) == Self.lsc)
    #expect(driver.read(0x00c0) == Self.lsc)
    driver.write(0x00c8, 1 << 9)
    #expect(driver.read(0x00c0) == Self.lsc | 1 << 9 | Self.other | 1 << 31)
    #expect(driver.read(0x00c0) == 0)
  }

  @Test func anAccessToICRMasksWhatIAMSays() throws {
    let driver = try start(auto: 0)
    driver.write(0x0018, 1 << 27)
    driver.write(0x00e0, Self.lsc)
    driver.write(0x00d0, Self.lsc | Self.rxq0)
    driver.write(0x00c8, Self.lsc)
    _ = driver.read(0x00c0)
    #expect(driver.read(0x00d0) == Self.rxq0)
    driver.write(0x00d8, .max)
    #expect(driver.read(0x00d0) == 0)
  }

  @Test func theLineFollowsTheCauses() throws {
    let driver = try RawDriver()
    driver.start()
    let line = driver.connectLine()
    _ = driver.read(0x00c0)
    driver.write(0x00d0, 1 << 7)
    driver.wire.arriving = [frame()]
    driver.run()
    #expect(driver.signals(line) == 1)
    // Not acknowledged, the line is still up when it is unmasked.
    driver.device.interrupts.setLineMasked(false)
    #expect(driver.signals(line) == 1)
    #expect(driver.read(0x00c0) & (1 << 31 | 1 << 7) == 1 << 31 | 1 << 7)
    driver.device.interrupts.setLineMasked(false)
    #expect(driver.signals(line) == 0)
  }

  @Test func aLinkChangeInterruptsAfterNegotiation() throws {
    let driver = try start()
    driver.write(0x00d0, Self.other | Self.lsc)
    driver.device.setLink(up: false)
    #expect(driver.interrupts(4) == 1)
    driver.write(0x00c0, Self.lsc)
    driver.write(0x00d0, Self.other)
    driver.device.setLink(up: true)
    #expect(driver.read(0x0008) & 2 == 0)
    driver.run()
    #expect(driver.read(0x0008) & 0xc3 == 0x83)
    #expect(driver.interrupts(4) == 1)
  }

  @Test func lostInterruptsAreLostAndStormsCome() throws {
    let driver = try start()
    driver.device.loseInterrupts(1)
    driver.write(0x00d0, Self.rxq0)
    driver.wire.arriving = [frame()]
    driver.run()
    #expect(driver.interrupts(0) == 0)
    #expect(driver.take() != nil)
    #expect(driver.device.counters.lostInterrupts == 1)
    driver.device.storm(interruptsPerStep: 10)
    _ = driver.device.step()
    #expect((0..<5).map(driver.interrupts) == [10, 10, 10, 10, 10])
    driver.device.storm(interruptsPerStep: 0)
    _ = driver.device.step()
    #expect(driver.interrupts(0) == 0)
  }
}
