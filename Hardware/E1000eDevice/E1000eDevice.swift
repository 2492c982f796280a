import EmulatedPCI
import PCI
import Wire

/// The Intel 82574L, as a PCI function: one port, two receive and two transmit queues, MSI-X with five vectors.
///
/// Written from the public datasheet (Intel 82574 GbE Controller Family, revision 3.4). Strict: what the driver does
/// against it is recorded in ``violations``. Deterministic: time passes only in ``step()``. One thread.
///
/// Not modelled: wake-up, management, PAUSE frames from the wire, packet split, IEEE 1588, flash, I/O space and EEPROM
/// writes. The registers of those that a driver may well write keep their values, without effect.
public final class E1000eDevice: EmulatedFunction {
  public struct Options: Sendable {
    public var macAddress: [UInt8] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]
    /// How much time one step stands for: what interrupt throttling and delay timers count.
    public var nanosecondsPerStep: UInt64 = 4096
    /// Steps that auto-negotiation takes after it was restarted or the cable put back.
    public var negotiationSteps = 2
    /// Older controllers of the family know the legacy receive descriptors only: RFCTL.EXSTEN reads as 0.
    public var hasExtendedDescriptors = true
    public init() {}
  }

  static let registerBAR = 0
  static let registerBytes: UInt64 = 0x20000
  static let queueCount = 2

  let wire: any FrameWire
  let options: Options
  public internal(set) var violations = ViolationRecord("82574 datasheet")
  public internal(set) var counters = DeviceCounters()

  /// Values of the registers that only keep what was written.
  var registers = [UInt32](repeating: 0, count: Int(registerBytes) / 4)
  var statistics = Statistics()
  var phy: PHY
  let eeprom: EEPROM
  var interruptState = InterruptState()
  var receiveRings: [DescriptorRing]
  var packetBuffer = PacketBuffer()
  /// The partner was told to wait.
  var isPaused = false
  var transmitQueues: [TransmitQueue]
  /// Nanoseconds of all steps so far.
  var now: UInt64 = 0
  /// After CTRL.RST, until the driver has seen that it is over or time has passed.
  var isInReset = false
  var linkWasUp = false
  // Invariant: `scratchBytes` bytes, this object's until `deinit`.
  let scratch: UnsafeMutableRawPointer
  static let scratchBytes = 12 + 16384

  // MARK: Faults for tests

  /// Changes descriptors on their way back to the driver.
  public var corrupt: ((inout WriteBack) -> Void)?
  var receiveMalformations: [Malformation] = []
  var transmitMalformations: [Malformation] = []
  var damagedFrames = 0
  var interruptsToLose = 0
  var stormingInterrupts = 0
  /// While set, the device does nothing at all, and answers register accesses only.
  public var isStalled = false
  /// While set, every register reads as ones and writes are lost: the device has fallen off the bus.
  public var isGone = false

  public init(wire: any FrameWire, options: Options = Options()) {
    self.wire = wire
    self.options = options
    eeprom = EEPROM(macAddress: options.macAddress)
    phy = PHY(negotiationSteps: options.negotiationSteps)
    receiveRings = ["RX0", "RX1"].map { DescriptorRing($0, section: "10.2.5") }
    transmitQueues = (0..<Self.queueCount).map { TransmitQueue($0) }
    scratch = .allocate(byteCount: Self.scratchBytes, alignment: 64)
    scratch.initializeMemory(as: UInt8.self, repeating: 0, count: Self.scratchBytes)
    super.init(
      configuration: ConfigurationSpace(
        vendor: 0x8086, device: 0x10d3, classCode: 0x02_0000, revision: 0, subsystem: 0),
      bars: [Self.registerBAR: Self.registerBytes], vectors: InterruptState.vectorCount,
      interruptBAR: 3)
    wire.setReceiveOffloads(checksum: false, tcp4: false, tcp6: false)
    powerOn()
  }

  deinit { scratch.deallocate() }

  // MARK: State

  /// CTRL.SLU lets the MAC see the PHY's link (10.2.2).
  public var linkIsUp: Bool { phy.linkIsUp && self[Register.ctrl] & Ctrl.setLinkUp != 0 }
  /// Whether the driver has turned the receiver or the transmitter on.
  public var isRunning: Bool { isReceiving || isTransmitting }
  var isReceiving: Bool { self[Register.rctl] & Rctl.enable != 0 }
  var isTransmitting: Bool { self[Register.tctl] & Tctl.enable != 0 }

  subscript(_ offset: Int) -> UInt32 {
    get { registers[offset / 4] }
    set { registers[offset / 4] = newValue }
  }

  /// Pulls the cable, or puts it back: the link comes after auto-negotiation.
  public func setLink(up: Bool) {
    phy.setCable(up)
    updateLink()
  }

  /// The next `count` receive descriptors are written back wrong in this way.
  public func malformReceive(_ malformation: Malformation, next count: Int = 1) {
    receiveMalformations += Array(repeating: malformation, count: count)
  }

  /// The next `count` transmit descriptors are written back wrong in this way.
  public func malformTransmit(_ malformation: Malformation, next count: Int = 1) {
    transmitMalformations += Array(repeating: malformation, count: count)
  }

  /// The next `count` frames from the wire come with a wrong CRC.
  public func damage(nextFrames count: Int) { damagedFrames += count }

  /// The next `count` interrupts never arrive.
  public func loseInterrupts(_ count: Int) { interruptsToLose += count }

  /// Every step signals all vectors and the line `perStep` times, whatever the masks say; 0 ends it.
  public func storm(interruptsPerStep perStep: Int) { stormingInterrupts = perStep }

  /// Forgets every fault that was asked for and has not happened yet.
  public func endFaults() {
    corrupt = nil
    receiveMalformations = []
    transmitMalformations = []
    damagedFrames = 0
    interruptsToLose = 0
    stormingInterrupts = 0
    isStalled = false
    isGone = false
  }

  public func clearViolations() { violations.clear() }

  // MARK: Registers

  public override func readRegister(bar: Int, offset: UInt64, byteCount: Int) -> UInt64 {
    if isGone { return .max }
    let at = Int(offset)
    guard isRightAccess("read", at, byteCount) else { return 0 }
    guard let limits = RegisterRule.limits(at: at) else {
      violations.add("10.2.1", "a read of \(hex(at)), where no register is")
      return 0
    }
    checkReset(at, isWrite: false)
    if limits.access == .writeOnly {
      refuse(at) { "a read of \($0), which is write-only" }
      return 0
    }
    return UInt64(readKnown(at, limits.access))
  }

  public override func writeRegister(bar: Int, offset: UInt64, byteCount: Int, value: UInt64) {
    if isGone { return }
    let at = Int(offset)
    guard isRightAccess("write", at, byteCount) else { return }
    guard let limits = RegisterRule.limits(at: at) else {
      violations.add("10.2.1", "a write to \(hex(at)), where no register is")
      return
    }
    checkReset(at, isWrite: true)
    let value = UInt32(truncatingIfNeeded: value)
    if limits.access == .readOnly || limits.access == .readClears {
      refuse(at) { "a write to \($0), which is read-only" }
      return
    }
    let reserved = value & limits.reserved
    if reserved != 0 {
      refuse(at) { "reserved bits \(hex(Int(reserved))) of \($0) were set" }
    }
    let missing = at == Register.rfctl && !options.hasExtendedDescriptors ? Rfctl.extendedStatus : 0
    writeKnown(at, value & ~reserved & ~missing)
  }

  // MARK: Reset (4.2)

  public override func resetModel() { powerOn() }

  private func powerOn() {
    phy.reset()
    while phy.step() {}
    // The tables have no defined contents before software writes them (10.2.5).
    for (offset, words) in [(Register.mta, 128), (Register.vfta, 128), (Register.reta, 32)] {
      for index in 0..<words { self[offset + 4 * index] = 0xa5a5_a5a5 }
    }
    resetPort()
    isInReset = false
  }

  /// CTRL.RST: all but configuration space, PHY and the tables in memory.
  func resetPort() {
    for (offset, value) in Self.initialValues { self[offset] = value }
    let address = options.macAddress.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    self[Register.ral] = UInt32(truncatingIfNeeded: address)
    self[Register.rah] = UInt32(address >> 32) | 1 << 31
    statistics.reset()
    interruptState = InterruptState()
    interrupts.setLine(false)
    for queue in 0..<Self.queueCount {
      receiveRings[queue].reset()
      receiveRings[queue].control = 1 << 16
      transmitQueues[queue] = TransmitQueue(queue)
    }
    counters.unwantedFrames += UInt64(packetBuffer.frames.count)
    packetBuffer = PacketBuffer()
    isPaused = false
    linkWasUp = linkIsUp
    isInReset = true
  }

  /// Of all registers but the tables.
  private static let initialValues = RegisterRule.table
    .filter { !isTable($0.key) }.map { (offset: $0.key, value: $0.value.initial) }

  private static func isTable(_ offset: Int) -> Bool {
    switch offset {
    case Register.mta..<Register.mta + 0x200, Register.vfta..<Register.vfta + 0x200,
      Register.reta..<Register.reta + 0x80, Register.rssrk..<Register.rssrk + 0x28:
      true
    default: false
    }
  }

  /// STATUS.LU may have changed.
  func updateLink() {
    if linkIsUp == linkWasUp { return }
    linkWasUp = linkIsUp
    raise(Cause.lsc)
  }

  // MARK: Work

  public override func step() -> Bool {
    if isStalled || isGone { return false }
    now += options.nanosecondsPerStep
    endReset()
    var worked = phy.step()
    updateLink()
    if stormingInterrupts > 0 { stormInterrupts() }
    if self[Register.ctrl] & Ctrl.masterDisable == 0 {
      for queue in 0..<Self.queueCount where transmitBurst(queue) { worked = true }
      if receiveBurst() { worked = true }
    }
    if runTimers() { worked = true }
    return worked
  }
}

extension E1000eDevice: PollingModel {
  public func prepareToSleep() -> Bool {
    if isStalled || isGone { return true }
    return !hasTransmitWork && !hasReceiveWork && !hasTimers
      && (phy.stepsToLink == 0 || !phy.hasCable)
  }

  public func wake() {}
}
