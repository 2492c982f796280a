import CLinux
import Driver
import DriverConformance
import E1000e
import EmulatedPCI
import Glibc
import Memory
import PCI
import Testing
import Wire

@testable import E1000eDevice

/// A controller that breaks its contract, in its registers and in its descriptors. Whatever it does, the driver comes
/// back in bounded time, each buffer comes back once, and after a reset all is well.
@Suite struct E1000eHostileDeviceTests {
  // MARK: Registers

  private func refuses(
    _ text: String, _ what: @escaping (RegisterAccess, UInt64) -> UInt64
  ) throws {
    let rig = try HostileController()
    rig.registers.answers = what
    let line = rig.failure().map { "\($0)" } ?? "it starts"
    #expect(line.contains(text), "\(line)")
    try rig.recover()
  }

  @Test func aResetThatNeverEnds() throws {
    let before = time(nil)
    try refuses("did not finish its reset") { access, value in
      access.offset == UInt64(Register.ctrl) ? value | 1 << 26 : value
    }
    #expect(time(nil) - before < 6)
  }

  @Test func anEEPROMThatIsNeverRead() throws {
    let before = time(nil)
    try refuses("its EEPROM does not answer") { access, value in
      switch Int(access.offset) {
      case Register.rah: 0
      case Register.eerd: 0
      default: value
      }
    }
    #expect(time(nil) - before < 6)
  }

  @Test(arguments: [0, 1, 0xff] as [UInt64]) func anAddressThatNoDeviceMayHave(first: UInt64) throws
  {
    try refuses("which no device may have") { access, value in
      switch Int(access.offset) {
      case Register.ral: first
      case Register.rah: 1 << 31
      default: value
      }
    }
  }

  @Test(arguments: [0, 1 << 30, 1 << 28 | 1 << 30] as [UInt64])
  func aPHYThatDoesNotAnswer(answer: UInt64) throws {
    try refuses("its PHY does not answer") { access, value in
      access.offset == UInt64(Register.mdic) ? answer : value
    }
  }

  /// Pulled out at any access of the start.
  @Test(arguments: 0..<24)
  func aDeviceThatIsGone(after accesses: Int) throws {
    let rig = try HostileController()
    rig.registers.vanish(afterReads: accesses)
    let before = time(nil)
    var error = rig.failure()
    if error == nil {
      rig.registers.vanish(afterReads: 0)
      error = rig.lookAtConfiguration()
    }
    #expect(error != nil && time(nil) - before < 6)
    try rig.recover()
  }

  /// Every register reads as it likes, for the whole start: refused or not, it ends.
  @Test(arguments: 0..<24) func registersThatAreAnything(seed: UInt64) throws {
    let rig = try HostileController()
    var random = seed &* 0x9e37_79b9_7f4a_7c15 | 1
    rig.registers.answers = { access, value in
      random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      // Configuration space, and what nothing starts without, are as they are.
      if access.bar != 0 || random >> 60 > 7 { return value }
      return random >> 24 & 0xffff_ffff
    }
    let before = time(nil)
    _ = rig.failure()
    #expect(time(nil) - before < 8)
    try rig.recover()
  }

  // MARK: Descriptors

  /// Status and errors, and a length, as both formats have them.
  @Test(arguments: [true, false], [2049, 4000, 0xffff] as [UInt16])
  func moreIsWrittenThanThereIsRoomFor(isExtended: Bool, length: UInt16) throws {
    let rig = try HostileController(isExtended: isExtended)
    try rig.start()
    try rig.post(16)
    rig.fill(status: 3, length: length)
    var failures: [DriverError] = []
    for _ in 0..<2 {
      do throws(DriverError) { _ = try rig.receive() } catch { failures.append(error) }
    }
    try #require(failures.count == 2 && failures[0] == failures[1])
    #expect("\(failures[0])".contains("device reports \(length) bytes"))
    try rig.recover()
  }

  @Test(arguments: [true, false]) func framesThatAreNone(isExtended: Bool) throws {
    let rig = try HostileController(isExtended: isExtended)
    try rig.start()
    try rig.post(8)
    var errors: UInt64 = 0
    // As often as there are buffers, and once more: they go back to the device.
    for length in [0, 1, 13, 1519, 2048, 0, 1, 13, 1519] as [UInt16] {
      rig.fill(status: 3, length: length)
      errors += 1
      let packets = try rig.receive()
      #expect(packets.isEmpty && rig.statistics().receiveErrors == errors)
    }
    for bits in [0x01, 0x02, 0x04, 0x10, 0x80] as [UInt8] {
      rig.fill(status: 3, length: 64, errors: bits)
      errors += 1
      let packets = try rig.receive()
      #expect(packets.isEmpty && rig.statistics().receiveErrors == errors)
    }
    rig.fill(status: 3, length: 64)
    let packets = try rig.receive()
    #expect(packets == [64])
    try rig.recover()
  }

  /// Frames that never end are dropped with their buffers, and the driver does not stay with them.
  @Test(arguments: [true, false]) func framesThatNeverEnd(isExtended: Bool) throws {
    let rig = try HostileController(isExtended: isExtended)
    try rig.start(ringSize: 256)
    try rig.post(200)
    for _ in 0..<200 { rig.fill(status: 1, length: 2048) }
    var tails = 0
    rig.registers.writes = { access, _ in
      if access.offset == 0x2818 { tails += 1 }
      return true
    }
    // 63 pieces are kept until they are too many, and 63 more are dropped; then 64 with each call.
    for calls in 1...4 {
      let packets = try rig.receive()
      #expect(packets.isEmpty && tails == min(calls, 3))
    }
    rig.fill(status: 3, length: 64)
    rig.fill(status: 3, length: 64)
    let packets = try rig.receive()
    #expect(packets == [64])
    try rig.recover()
  }

  /// Buffers of a frame that is refused in the end go back to a ring that has been filled up meanwhile.
  @Test(arguments: [true, false]) func aRingThatIsFullWhenBuffersGoBack(isExtended: Bool) throws {
    let rig = try HostileController(isExtended: isExtended)
    try rig.start()
    try rig.post(63)
    for _ in 0..<8 { rig.fill(status: 1, length: 100) }
    var packets = try rig.receive()
    #expect(packets.isEmpty)
    try rig.post(rig.room())
    rig.fill(status: 3, length: 0)
    packets = try rig.receive()
    #expect(packets.isEmpty && rig.statistics().receiveErrors == 1)
    #expect(rig.room() == 0)
    rig.fill(status: 3, length: 64)
    packets = try rig.receive()
    #expect(packets == [64])
    try rig.recover()
  }

  /// A device that goes on with frames that are refused does not keep the driver in one call.
  @Test func refusedFramesWithoutEnd() throws {
    let rig = try HostileController()
    try rig.start(ringSize: 256)
    try rig.post(250)
    for _ in 0..<250 { rig.fill(status: 3, length: 3) }
    var seen: UInt64 = 0
    for _ in 0..<10 where seen < 250 {
      let packets = try rig.receive()
      let errors = rig.statistics().receiveErrors
      #expect(packets.isEmpty && errors > seen && errors - seen <= 64)
      seen = errors
    }
    #expect(seen == 250)
    try rig.recover()
  }

  /// 7.1.10: a checksum counts where it was checked and not found wrong; what else the device says of the packet, its
  /// hash and its sum, goes nowhere.
  @Test(arguments: [true, false]) func contradictionsAboutChecksums(isExtended: Bool) throws {
    let rig = try HostileController(isExtended: isExtended)
    try rig.start()
    try rig.post(8)
    rig.fill(status: 3 | 0x30, length: 64, errors: 0x20)
    rig.fill(status: 3 | 0x30, length: 64, errors: 0x40)
    rig.fill(status: 3 | 0x30, length: 64)
    rig.fill(status: 3, length: 64, low: .max)
    let packets = try rig.receive()
    #expect(packets.count == 4)
    #expect(rig.checkedPackets == [false, false, true, false])
    try rig.recover()
  }

  /// Descriptors behind the tail, and packets that were never sent, are not looked at.
  @Test func completionsOfWhatTheDeviceDoesNotHold() throws {
    let rig = try HostileController()
    try rig.start()
    try rig.post(4)
    for ahead in 0..<16 { rig.write(rig.device.receiveRings[0], ahead: ahead, 3 | 64 << 32) }
    for ahead in 0..<16 { rig.write(rig.device.transmitQueues[0].ring, ahead: ahead, .max) }
    let packets = try rig.receive()
    #expect(packets.count == 4)
    var tags = try rig.complete()
    #expect(tags.isEmpty)
    try rig.send([1, 2])
    tags = try rig.complete()
    #expect(tags.isEmpty)
    rig.write(rig.device.transmitQueues[0].ring, ahead: 1, .max)
    rig.write(rig.device.transmitQueues[0].ring, ahead: 0, .max)
    rig.write(rig.device.transmitQueues[0].ring, ahead: 3, .max)
    tags = try rig.complete()
    #expect(tags == [1, 2])
    try rig.recover()
  }
}
