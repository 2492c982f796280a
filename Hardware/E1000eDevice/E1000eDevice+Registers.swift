import EmulatedPCI

/// Register accesses (82574 datasheet, 10.1.3 and 10.2).
extension E1000eDevice {
  func hex(_ value: Int) -> String { "0x" + String(value, radix: 16) }

  /// Records what is wrong with an access to the register at an offset.
  /// - Parameter detail: says it, of the register's name.
  func refuse(_ offset: Int, _ detail: (String) -> String) {
    guard let rule = RegisterRule.table[offset] else { return }
    violations.add(rule.section, detail(rule.name))
  }

  /// 10.1.3: registers are 32 bits wide and are accessed as such.
  func isRightAccess(_ what: String, _ offset: Int, _ byteCount: Int) -> Bool {
    if byteCount == 4 && offset % 4 == 0 { return true }
    violations.add("10.1.3", "a \(what) of \(byteCount) bytes at \(hex(offset))")
    return false
  }

  /// 10.2.2: after CTRL.RST the driver waits, and sees in CTRL, STATUS or EEC that the reset is over. RST reads as set
  /// once before that.
  func checkReset(_ offset: Int, isWrite: Bool) {
    guard isInReset else { return }
    if !isWrite && offset == Register.ctrl && self[offset] & Ctrl.reset != 0 { return }
    if isWrite || ![Register.ctrl, Register.status, Register.eec].contains(offset) {
      violations.add(
        "10.2.2",
        "an access to \(RegisterRule.table[offset]?.name ?? "") before the reset was seen to be over"
      )
    }
    endReset()
  }

  func endReset() {
    self[Register.ctrl] &= ~Ctrl.reset
    isInReset = false
  }

  func readKnown(_ offset: Int, _ access: RegisterRule.Access) -> UInt32 {
    if access == .readClears { return statistics.read(offset) }
    if let value = readRing(offset) { return value }
    switch offset {
    case Register.ctrl:
      defer { self[offset] &= ~Ctrl.reset }
      return self[offset]
    case Register.status: return statusValue
    case Register.icr: return readCauses()
    case Register.ims: return interruptState.mask
    case Register.swsm:
      // SMBI: who reads 0 has the semaphore.
      let value = self[offset]
      self[offset] = value | 1
      return value
    default: return self[offset]
    }
  }

  private var statusValue: UInt32 {
    var value = self[Register.status] | Status.speed1000 | Status.detected1000 | Status.fullDuplex
    if linkIsUp { value |= Status.linkUp }
    if self[Register.ctrl] & Ctrl.masterDisable == 0 { value |= Status.masterEnabled }
    return value
  }

  func writeKnown(_ offset: Int, _ value: UInt32) {
    if writeRing(offset, value) { return }
    switch offset {
    case Register.ctrl: writeControl(value)
    case Register.ctrlExt: self[offset] = value & ~CtrlExt.eepromReset
    case Register.eerd: self[offset] = eeprom.read(value)
    case Register.mdic: writePHY(value)
    case Register.pba: divideBuffer(value & 0xffff)
    case Register.icr, Register.ics, Register.ims, Register.imc, Register.ivar:
      writeInterruptRegister(offset, value)
    case Register.rdtr:
      self[offset] = value & 0xffff
      if value >> 31 != 0 { flushReceiveTimer() }
    case Register.rctl: writeReceiveControl(value)
    case Register.tctl: writeTransmitControl(value)
    case Register.rxcsum, Register.rfctl, Register.mrqc: writeReceiveMode(offset, value)
    default: self[offset] = value
    }
  }

  /// PBA: software says how much of the 40 KB is for receiving; the rest is for transmitting.
  private func divideBuffer(_ receive: UInt32) {
    if receive == 0 || receive >= 40 {
      violations.add("10.2.2", "PBA gives \(receive) KB of 40 to the receiver")
    } else {
      self[Register.pba] = receive | (40 - receive) << 16
    }
  }

  private func writeControl(_ value: UInt32) {
    if value & Ctrl.phyReset != 0 { phy.reset() }
    if value & Ctrl.reset != 0 {
      resetPort()
      self[Register.ctrl] |= Ctrl.reset
    } else {
      // The reset bits clear themselves.
      self[Register.ctrl] = value & ~(Ctrl.phyReset | Ctrl.reset)
      updateLink()
    }
  }

  /// MDIC: one access, at once; READY says that it is over.
  private func writePHY(_ value: UInt32) {
    let operation = value >> 26 & 3
    let register = Int(value >> 16 & 31)
    var result = value & 0x2fff_ffff | 1 << 28
    if value >> 21 & 31 != UInt32(PHY.address) || operation == 0 || operation == 3 {
      violations.add("10.2.2", "MDIC operation \(operation) on PHY \(value >> 21 & 31)")
      result |= 1 << 30
    } else if operation == 2 {
      result = result & ~0xffff | UInt32(phy.read(register))
    } else {
      phy.write(register, UInt16(truncatingIfNeeded: value))
      updateLink()
    }
    self[Register.mdic] = result
    if value >> 29 & 1 != 0 { raise(Cause.mdac) }
  }

  private func flushReceiveTimer() {
    let causes = interruptState.receive.causes
    interruptState.receive = .init()
    if causes != 0 { raise(causes) }
  }

  // MARK: Turning the port on

  private func writeReceiveControl(_ value: UInt32) {
    if value & Rctl.enable != 0 && !isReceiving {
      checkRing(receiveRings[0], "RCTL.EN was set")
    }
    if Rctl.bufferBytes(value) == nil {
      violations.add("10.2.5", "RCTL.BSEX with a BSIZE of 0, which is reserved")
    }
    if value & 0xc00 != 0 { violations.add("10.2.5", "RCTL.DTYP is \(value >> 10 & 3)") }
    self[Register.rctl] = value
    if value & Rctl.enable != 0 { checkHash() }
  }

  private func writeTransmitControl(_ value: UInt32) {
    if value & Tctl.enable != 0 && !isTransmitting {
      checkRing(transmitQueues[0].ring, "TCTL.EN was set")
    }
    self[Register.tctl] = value
  }

  func checkRing(_ ring: DescriptorRing, _ what: String) {
    if ring.count == 0 { violations.add(ring.section, "\(what), and \(ring.name) has no ring") }
  }

  /// 10.2.5: these are written while the receiver is off.
  private func writeReceiveMode(_ offset: Int, _ value: UInt32) {
    if isReceiving && value != self[offset], let rule = RegisterRule.table[offset] {
      violations.add("10.2.5", "\(rule.name) was changed while the receiver is on")
    }
    self[offset] = value
    if offset == Register.mrqc && value & 3 > 1 {
      violations.add("10.2.5", "MRQC has the reserved mode \(value & 3)")
    }
  }

  /// 7.1.11: the hash has its place in the extended descriptor, where the packet checksum would be.
  private func checkHash() {
    let isExtended = self[Register.rfctl] & Rfctl.extendedStatus != 0
    let hasHash = self[Register.rxcsum] & Rxcsum.packetChecksumDisable != 0
    if self[Register.mrqc] & 3 == 1 && !(isExtended && hasHash) {
      violations.add("7.1.11", "MRQC is on without RFCTL.EXSTEN and RXCSUM.PCSD")
    }
    if hasHash && !isExtended {
      violations.add("7.1.3.2", "RXCSUM.PCSD with legacy descriptors")
    }
  }

  // MARK: Rings

  private func readRing(_ offset: Int) -> UInt32? {
    guard let (queue, isReceive, field) = ringField(offset) else { return nil }
    let ring = isReceive ? receiveRings[queue] : transmitQueues[queue].ring
    switch field {
    case Register.rdbal: return UInt32(truncatingIfNeeded: ring.base)
    case Register.rdbah: return UInt32(ring.base >> 32)
    case Register.rdlen: return ring.length
    case Register.rdh: return UInt32(ring.head)
    case Register.rdt: return UInt32(ring.tail)
    default: return ring.control
    }
  }

  /// - Returns: whether the register is one of a ring's.
  private func writeRing(_ offset: Int, _ value: UInt32) -> Bool {
    guard let (queue, isReceive, field) = ringField(offset) else { return false }
    let isOn = isReceive ? isReceiving : isTransmitting
    func write(_ ring: inout DescriptorRing) {
      let isSetting = field != Register.rdt && field != Register.rxdctl
      if isOn && isSetting {
        violations.add(ring.section, "a ring register of \(ring.name) was written while it runs")
      }
      switch field {
      case Register.rdbal: ring.base = ring.base & ~0xffff_ffff | UInt64(value)
      case Register.rdbah: ring.base = ring.base & 0xffff_ffff | UInt64(value) << 32
      case Register.rdlen: ring.length = value
      case Register.rdh: ring.head = Int(value)
      case Register.rdt:
        counters.tailWrites += 1
        ring.writeTail(value, &violations)
      default: ring.control = value
      }
    }
    if isReceive { write(&receiveRings[queue]) } else { write(&transmitQueues[queue].ring) }
    return true
  }

  /// Which ring a register belongs to; `field` is the register of receive queue 0 with the same meaning.
  private func ringField(_ offset: Int) -> (queue: Int, isReceive: Bool, field: Int)? {
    let isReceive = offset < Register.tdbal
    let first = isReceive ? Register.rdbal : Register.tdbal
    let place = offset - first
    guard place >= 0, place < Register.queueStride * Self.queueCount else { return nil }
    let field = Register.rdbal + place % Register.queueStride
    switch field {
    case Register.rdbal, Register.rdbah, Register.rdlen, Register.rdh, Register.rdt,
      Register.rxdctl:
      return (place / Register.queueStride, isReceive, field)
    default: return nil
    }
  }
}
