import CLinux
import Driver
import EmulatedPCI
import Glibc
import PCI
import Testing
import Virtio
import VirtioNet
import VirtioNetDevice

/// What virtio 1.2 asks of a device, broken by one: chapters 2.1 to 2.5, 4.1 and 5.1.4. The driver says what is wrong, in
/// one line, in bounded time; and starts on the same device once that is honest.
@Suite struct RegisterMustTests {
  /// The start fails, and says so with `text`.
  private func refuses(
    _ text: String, _ rig: HostileRig, pairs: Int = 1, interrupts: InterruptPlan = .none,
    _ what: @escaping (RegisterAccess, UInt64) -> UInt64
  ) throws {
    rig.registers.answers = what
    let error = rig.failure(pairs: pairs, interrupts: interrupts)
    let line = error.map { "\($0)" } ?? "it starts"
    #expect(line.contains(text) && !line.contains("\n"), "\(line)")
    try rig.recover()
  }

  // MARK: 2.1, 2.2: status and features

  @Test func featuresAreNotAgreedTo() throws {
    try refuses("refuses the features", try HostileRig()) { access, value in
      HostileRig.isCommon(access, VirtioPCI.Common.deviceStatus)
        ? value & ~UInt64(VirtioStatus.featuresOK.rawValue) : value
    }
  }

  /// 2.2.2: no feature without what it needs. Such a one is left alone.
  @Test(arguments: formats) func featuresWithoutWhatTheyNeed(format: VirtioFeatures) throws {
    let rig = try HostileRig(format)
    var isLow = false
    rig.registers.writes = { access, value in
      if HostileRig.isCommon(access, VirtioPCI.Common.deviceFeatureSelect) { isLow = value == 0 }
      return true
    }
    let missing: VirtioFeatures = [.checksum, .guestChecksum, .controlQueue]
    rig.registers.answers = { access, value in
      HostileRig.isCommon(access, VirtioPCI.Common.deviceFeature) && isLow
        ? value & ~missing.rawValue : value
    }
    #expect(rig.failure(pairs: 2) == nil)
    #expect(rig.device.features.intersection([.hostTSO4, .guestTSO4, .controlReceive]) == [])
    #expect(rig.device.violations.first == [])
    try rig.recover()
  }

  /// Each half of the features is read once: what they become afterwards is of no account.
  @Test func featuresThatChange() throws {
    let rig = try HostileRig()
    var reads = 0
    rig.registers.answers = { access, value in
      guard HostileRig.isCommon(access, VirtioPCI.Common.deviceFeature) else { return value }
      reads += 1
      return reads > 2 ? 0 : value
    }
    #expect(rig.failure() == nil)
    #expect(reads == 2 && rig.device.violations.first == [])
    try rig.recover()
  }

  /// 2.4.1: the status reads 0 once the reset is complete.
  @Test func aResetThatNeverEnds() throws {
    let before = time(nil)
    try refuses("did not finish its reset", try HostileRig()) { access, value in
      HostileRig.isCommon(access, VirtioPCI.Common.deviceStatus) ? value | 4 : value
    }
    #expect(time(nil) - before < 10)
  }

  /// Pulled out at any access of the start.
  @Test(arguments: 0..<66)
  func aDeviceThatIsGone(after accesses: Int) throws {
    let rig = try HostileRig()
    rig.registers.vanish(afterReads: accesses)
    let before = time(nil)
    var error = rig.failure()
    if error == nil {
      rig.registers.vanish(afterReads: 0)
      do throws(DriverError) { _ = try rig.lookAtConfiguration() } catch let thrown {
        error = thrown
      }
    }
    #expect(error != nil && time(nil) - before < 6)
    try rig.recover()
  }

  // MARK: 4.1.4.3: queues

  @Test(arguments: [0, 1, 3, 100, 0x8001, 0xffff] as [UInt64])
  func impossibleQueueSizes(size: UInt64) throws {
    try refuses("has a size of \(size)", try HostileRig()) { access, value in
      HostileRig.isCommon(access, VirtioPCI.Common.queueSize) ? size : value
    }
  }

  @Test(arguments: [0, 1, 0x8001, 0xffff] as [UInt64])
  func impossiblePackedQueueSizes(size: UInt64) throws {
    try refuses("has a size of \(size)", try HostileRig(.packedRing)) { access, value in
      HostileRig.isCommon(access, VirtioPCI.Common.queueSize) ? size : value
    }
  }

  /// 4.1.4.4.1: the place lies inside the structure.
  @Test(arguments: [0x400, 0x7fff, 0xffff] as [UInt64])
  func notificationsOutsideTheirStructure(offset: UInt64) throws {
    try refuses("do not lie inside BAR 4", try HostileRig()) { access, value in
      HostileRig.isCommon(access, VirtioPCI.Common.queueNotifyOffset) ? offset : value
    }
  }

  /// 4.1.5.1.2.1: NO_VECTOR where there is no room; any other answer is none either.
  @Test(
    arguments: [VirtioPCI.Common.configurationVector, VirtioPCI.Common.queueVector],
    [0xffff, 2, 0x7ff] as [UInt64])
  func vectorsThatAreNotTaken(register: Int, answer: UInt64) throws {
    let plan = InterruptPlan(configuration: -1, queues: [-1])
    try refuses("refuses interrupt vector", try HostileRig(), interrupts: plan) { access, value in
      HostileRig.isCommon(access, register) ? answer : value
    }
  }

  // MARK: 2.5, 5.1.4: device configuration

  @Test func aConfigurationThatNeverSettles() throws {
    var generation: UInt64 = 0
    try refuses("never stops changing", try HostileRig()) { access, value in
      guard HostileRig.isCommon(access, VirtioPCI.Common.configurationGeneration) else {
        return value
      }
      generation += 1
      return generation & 0xff
    }
  }

  @Test(arguments: [0, 0x8000, 0xffff] as [UInt64])
  func impossibleNumbersOfQueuePairs(pairs: UInt64) throws {
    try refuses("\(pairs) queue pairs", try HostileRig(queuePairs: 2), pairs: 2) { access, value in
      HostileRig.isDevice(access, VirtioNetConfiguration.maximumQueuePairs) ? pairs : value
    }
  }

  /// As many as there can be: the control queue behind them is one that this device does not have.
  @Test func moreQueuePairsThanThereAre() throws {
    try refuses("queue 65534 has a size of 0", try HostileRig(queuePairs: 2), pairs: 2) {
      access, value in
      HostileRig.isDevice(access, VirtioNetConfiguration.maximumQueuePairs) ? 0x7fff : value
    }
  }

  @Test(arguments: [0, 67] as [UInt64]) func impossibleMTUs(mtu: UInt64) throws {
    try refuses("an MTU of \(mtu)", try HostileRig()) { access, value in
      HostileRig.isDevice(access, VirtioNetConfiguration.mtu) ? mtu : value
    }
  }

  /// The largest one is possible; what it becomes while packets come is of no account.
  @Test func anMTUThatChanges() throws {
    let rig = try HostileRig()
    rig.registers.answers = { access, value in
      HostileRig.isDevice(access, VirtioNetConfiguration.mtu) ? 65535 : value
    }
    try rig.start(ringSize: 64)
    #expect(rig.interface().mtu == 65535)
    rig.registers.answers = { access, value in
      HostileRig.isDevice(access, VirtioNetConfiguration.mtu) ? 0 : value
    }
    try rig.post(16)
    rig.wire.arriving = [frame(1, byteCount: 5000)]
    while rig.device.step() {}
    _ = try rig.lookAtConfiguration()
    let packets = try rig.receive()
    #expect(packets.map(\.byteCount) == [5000])
    #expect(rig.interface().mtu == 65535)
    try rig.recover()
  }

  @Test(arguments: [0x00, 0x01, 0xff] as [UInt64]) func impossibleAddresses(first: UInt64) throws {
    try refuses("which no device may have", try HostileRig()) { access, value in
      let offset = Int(access.offset) - 0x2000
      guard access.bar == 4, (0..<6).contains(offset) else { return value }
      return offset == 0 ? first : first == 0 ? 0 : value
    }
  }

  // MARK: 4.1.4: structures

  /// Byte `at` of the capability of a kind reads as something else.
  private func capability(
    _ kind: VirtioPCI.Structure, _ at: Int, _ bytes: Int, reads answer: UInt64
  ) -> (RegisterAccess, UInt64) -> UInt64 {
    // As the model lays them out: vendor-specific ones of 16 bytes, the notifications' of 20.
    let places: [VirtioPCI.Structure: UInt64] = [
      .common: 0x40, .interruptStatus: 0x50, .device: 0x60, .notify: 0x70,
    ]
    return { access, value in
      access.bar == RegisterAccess.configurationSpace
        && access.offset == places[kind]! + UInt64(at) && access.byteCount == bytes
        ? answer : value
    }
  }

  @Test(arguments: [.common, .notify, .interruptStatus, .device] as [VirtioPCI.Structure])
  func structuresOutsideTheirRegion(kind: VirtioPCI.Structure) throws {
    for offset in [0x4000, 0xffff_f000, 0xffff_ffff] as [UInt64] {
      try refuses(
        "inside BAR 4", try HostileRig(),
        capability(kind, VirtioPCI.Capability.offset, 4, reads: offset))
    }
    try refuses(
      "inside BAR 4", try HostileRig(),
      capability(kind, VirtioPCI.Capability.byteCount, 4, reads: 0xffff_ffff))
    // Registers of ports, or none at all.
    try refuses(
      "no memory region behind BAR 5", try HostileRig(),
      capability(kind, VirtioPCI.Capability.bar, 1, reads: 5))
    try refuses(
      "bytes long", try HostileRig(),
      capability(kind, VirtioPCI.Capability.length, 1, reads: 8))
    try refuses(
      "its structure has only 0 bytes", try HostileRig(),
      capability(kind, VirtioPCI.Capability.byteCount, 4, reads: 0))
  }

  @Test(arguments: [.common, .notify, .interruptStatus, .device] as [VirtioPCI.Structure])
  func structuresThatAreMissing(kind: VirtioPCI.Structure) throws {
    try refuses(
      "lacks its", try HostileRig(),
      capability(kind, VirtioPCI.Capability.type, 1, reads: 99))
  }

  @Test func regionsOfNothing() throws {
    let rig = try HostileRig()
    rig.function.regionByteCounts[4] = 0
    let error = rig.failure()
    #expect(error == .pci(.noRegion(bar: 4)))
    rig.function.regionByteCounts = [:]
    try rig.recover()
  }

  @Test func aListOfCapabilitiesThatLoops() throws {
    for next in [0x40, 0x50, 0x10] as [UInt64] {
      try refuses("capability at offset", try HostileRig()) { access, value in
        access.bar == RegisterAccess.configurationSpace && access.offset == 0x61 ? next : value
      }
    }
  }

  /// A capability comes twice: the first one counts (4.1.4.1).
  @Test func structuresThatComeTwice() throws {
    let rig = try HostileRig()
    let second = capability(.interruptStatus, VirtioPCI.Capability.type, 1, reads: 1)
    rig.registers.answers = { access, value in
      let isBAR = access.bar == RegisterAccess.configurationSpace && access.offset == 0x54
      return isBAR ? 5 : second(access, value)
    }
    // The second one's region does not exist; nor is there one for the interrupt status now.
    #expect(rig.failure() == .pci(.missingCapability("interrupt status")))
    try rig.recover()
  }

  // MARK: 2.1.2: a device that asks to be reset

  @Test(arguments: formats) func aResetIsAskedForInTheMiddle(format: VirtioFeatures) throws {
    let rig = try HostileRig(format)
    try rig.start(ringSize: 64)
    try rig.post(32)
    try rig.send([1, 2, 3])
    rig.wire.arriving = (0..<5).map { frame($0) }
    _ = rig.device.step()
    rig.device.fail()
    var error: DriverError?
    do throws(DriverError) { _ = try rig.lookAtConfiguration() } catch let thrown { error = thrown }
    #expect(error == .deviceNeedsReset)
    try rig.recover()
  }

  /// Interrupts are never what the driver goes by: before the start, without end, and none at all.
  @Test func interruptsWithoutReason() throws {
    let event = eventfd(0, Int32(EFD_NONBLOCK))
    defer { close(event) }
    let rig = try HostileRig()
    rig.registers.writes = { access, _ in
      // At every write of the start.
      for vector in 0..<3 { rig.device.interrupts.trigger(vector) }
      return true
    }
    try rig.start(
      ringSize: 64, interrupts: InterruptPlan(configuration: event, queues: [event]))
    rig.registers.writes = { _, _ in true }
    for number in 0..<200 {
      rig.device.interrupts.trigger(number % 3)
      #expect(try rig.lookAtConfiguration() == false)
    }
    try rig.post(8)
    rig.device.interrupts.disconnectAll()
    rig.wire.arriving = [frame(1)]
    while rig.device.step() {}
    let packets = try rig.receive()
    #expect(packets.count == 1)
    try rig.recover()
  }

  // MARK: 2.6.1: a queue that is reset

  @Test func aQueueResetThatNeverEnds() throws {
    let rig = try HostileRig()
    try rig.start(ringSize: 64)
    try rig.post(8)
    rig.registers.answers = { access, value in
      HostileRig.isCommon(access, VirtioPCI.Common.queueReset) ? 1 : value
    }
    #expect(throws: DriverError.resetTimeout) { try rig.resetReceiveRing() }
    try rig.recover()
  }
}
