import Driver
import PCI

/// The controller's registers and what is done with them alone: reset, EEPROM, PHY, addresses. Control path.
struct Controller {
  let function: any PCIFunction
  let registers: RegisterWindow

  init(_ function: any PCIFunction) throws(DriverError) {
    self.function = function
    registers = try DriverError.passing { () throws(PCIError) in
      try function.setBusMaster(false)
      return try function.openRegion(bar: 0).window(at: 0, byteCount: 0x20000)
    }
  }

  func read(_ register: Int) -> UInt32 { registers.read32(at: register) }
  func write(_ value: UInt32, _ register: Int) { registers.write32(value, at: register) }

  func wait(milliseconds: Int, _ isDone: () -> Bool) -> Bool {
    let limit = Deadline(milliseconds: milliseconds)
    while !isDone() {
      if limit.hasPassed { return isDone() }
      limit.pause()
    }
    return true
  }

  /// Stops DMA, then resets everything but the PHY (4.6.1, 14.9). Interrupts are masked before and after.
  func reset() throws(DriverError) {
    write(.max, Register.interruptMaskClear)
    write(0, Register.receiveControl)
    write(TransmitControl.padShort, Register.transmitControl)
    let before = read(Register.control)
    if before == .max { throw .deviceGone }
    // Requests that are under way must end first; a function that does not say so is reset all the same.
    write(before | Control.masterDisable, Register.control)
    _ = wait(milliseconds: 100) { read(Register.status) & Status.masterEnabled == 0 }
    write(before | Control.reset, Register.control)
    // No register may be touched for a microsecond (10.2.2.1); reading the configuration takes longer.
    let limit = Deadline(milliseconds: 1)
    while !limit.hasPassed { limit.pause() }
    let isDone = wait(milliseconds: 1000) {
      read(Register.control) & Control.reset == 0 && read(Register.eeprom) & 1 << 9 != 0
    }
    if read(Register.control) == .max { throw .deviceGone }
    if !isDone { throw .resetTimeout }
    write(.max, Register.interruptMaskClear)
    _ = read(Register.interruptCause)
  }

  /// The address that the EEPROM has loaded into the first receive address; from the EEPROM itself where it has not.
  func macAddress() throws(DriverError) -> MACAddress {
    var low = read(Register.receiveAddress)
    var high = read(Register.receiveAddress + 4)
    if high & 1 << 31 == 0 {
      let words = (try eepromWord(0), try eepromWord(1), try eepromWord(2))
      low = UInt32(words.0) | UInt32(words.1) << 16
      high = UInt32(words.2)
    }
    let address = MACAddress(low: low, high: high)
    guard !address.isMulticast, !address.isZero else {
      throw .unsupported("\(function.name) has the address \(address), which no device may have")
    }
    return address
  }

  /// 10.2.2.4.
  private func eepromWord(_ index: UInt32) throws(DriverError) -> UInt16 {
    write(index << 2 | 1, Register.eepromRead)
    let isRead = wait(milliseconds: 100) { read(Register.eepromRead) & 2 != 0 }
    guard isRead else { throw .unsupported("\(function.name): its EEPROM does not answer") }
    return UInt16(truncatingIfNeeded: read(Register.eepromRead) >> 16)
  }

  /// Lets the link come up at what both ends can, also where the PHY was left asleep (10.2.2.1; 802.3, 22.2.4.1).
  func bringUpLink() throws(DriverError) {
    let asleep: UInt16 = 1 << 11 | 1 << 10
    let negotiate: UInt16 = 1 << 12 | 1 << 9
    write(1 << 5, Register.phyOwnership)
    let basicControl = try phy(0)
    if basicControl & asleep != 0 || basicControl & 1 << 12 == 0 {
      try phy(0, writing: basicControl & ~asleep | negotiate)
    }
    write(0, Register.phyOwnership)
    let forced = Control.forceSpeedAndDuplex | Control.masterDisable
    write(read(Register.control) & ~forced | Control.setLinkUp, Register.control)
  }

  /// Reads a register of the PHY, which is number 1, or writes it (10.2.2.7).
  @discardableResult
  private func phy(_ register: UInt32, writing value: UInt16? = nil) throws(DriverError) -> UInt16 {
    let operation: UInt32 = value == nil ? 2 << 26 : 1 << 26
    write(UInt32(value ?? 0) | register << 16 | 1 << 21 | operation, Register.phyAccess)
    let isReady = wait(milliseconds: 100) { read(Register.phyAccess) & 1 << 28 != 0 }
    let answer = read(Register.phyAccess)
    guard isReady, answer & 1 << 30 == 0 else {
      throw .unsupported("\(function.name): its PHY does not answer")
    }
    return UInt16(truncatingIfNeeded: answer)
  }

  /// An entry of the table of receive addresses; nil makes it void (10.2.5.24).
  func setReceiveAddress(_ index: Int, _ address: MACAddress?) {
    let at = Register.receiveAddress + 8 * index
    write(address?.registers.low ?? 0, at)
    write(address.map { $0.registers.high | 1 << 31 } ?? 0, at + 4)
  }

  /// The table's bit for a multicast address: bits 47 to 36, as with a filter offset of 0 (10.2.5.23).
  static func multicastBit(_ address: MACAddress) -> Int {
    Int(address.bytes.4 >> 4) | Int(address.bytes.5) << 4
  }
}
