import EduDevice
import EmulatedPCI
import PCI
import Testing

/// What the strict model records, by bare register accesses.
struct EduDeviceTests {
  let bench: Bench
  let registers: RegisterWindow

  init() throws {
    bench = try Bench()
    registers = try bench.function.openRegion(bar: 0).window(at: 0, byteCount: 0x100)
    try bench.function.setBusMaster(true)
  }

  func transfer(from source: UInt32, to target: UInt32, _ byteCount: UInt32, _ command: UInt32) {
    registers.write32(source, at: 0x80)
    registers.write32(target, at: 0x88)
    registers.write32(byteCount, at: 0x90)
    registers.write32(command, at: 0x98)
  }

  @Test func registersThatAreNotThereOrNotWritten() {
    _ = registers.read16(at: 0x04)
    registers.write8(1, at: 0x80)
    _ = registers.read32(at: 0x0c)
    registers.write32(1, at: 0x00)
    registers.write32(1, at: 0x24)
    _ = registers.read32(at: 0x60)
    registers.write32(0x81, at: 0x20)
    #expect(
      bench.device.violations == [
        .width(offset: 0x04, byteCount: 2), .width(offset: 0x80, byteCount: 1),
        .unknownRegister(offset: 0x0c), .writeToReadOnly(offset: 0x00),
        .writeToReadOnly(offset: 0x24), .readOfWriteOnly(offset: 0x60),
        .unknownBits(offset: 0x20, value: 0x81),
      ])
  }

  @Test func enginesThatAreDisturbed() {
    registers.write32(4, at: 0x08)
    registers.write32(5, at: 0x08)
    _ = registers.read32(at: 0x08)
    transfer(from: 0x10_0000, to: 0x40000, 16, 1)
    registers.write32(17, at: 0x90)
    #expect(
      bench.device.violations == [
        .busy(offset: 0x08), .readTooEarly(offset: 0x08), .busy(offset: 0x90),
      ])
    #expect(bench.device.step() && !bench.device.step())
    #expect(registers.read32(at: 0x08) == 24 && registers.read32(at: 0x90) == 16)
  }

  @Test(
    arguments: [
      (0x40000, 0, EduViolation.emptyTransfer),
      (0x3ffff, 16, .outsideBuffer(address: 0x3ffff, byteCount: 16)),
      (0x40000, 4096, .outsideBuffer(address: 0x40000, byteCount: 4096)),
      (0x40ff0, 16, .outsideBuffer(address: 0x40ff0, byteCount: 16)),
      (0x41000, 1, .outsideBuffer(address: 0x41000, byteCount: 1)),
    ] as [(UInt32, UInt32, EduViolation)])
  func transfersThatDoNotFit(place: UInt32, byteCount: UInt32, violation: EduViolation) {
    transfer(from: 0x10_0000, to: place, byteCount, 1)
    _ = bench.device.step()
    transfer(from: place, to: 0x10_0000, byteCount, 3)
    _ = bench.device.step()
    #expect(bench.device.violations == [violation, violation])
    #expect(bench.device.iommu.faults == [])
  }

  @Test func addressesThatItCannotReach() throws {
    transfer(from: 0x1010_0000, to: 0x40000, 16, 1)
    _ = bench.device.step()
    #expect(bench.device.violations == [.beyondMask(iova: 0x1010_0000)])
    // It goes where the lower address lines say: that is mapped.
    #expect(bench.device.iommu.faults == [])
    transfer(from: 0x20_0000, to: 0x40000, 16, 1)
    _ = bench.device.step()
    #expect(bench.device.iommu.faults.map(\.iova) == [0x20_0000])
  }

  @Test func withoutBusMasteringNothingReachesMemory() throws {
    try bench.function.setBusMaster(false)
    transfer(from: 0x10_0000, to: 0x40000, 16, 1)
    _ = bench.device.step()
    #expect(bench.device.violations == [.noBusMaster])
    try bench.function.enableInterrupts(.msi, eventfds: [bench.eventfd])
    registers.write32(7, at: 0x60)
    #expect(bench.device.violations == [.noBusMaster, .noBusMaster] && bench.signals() == 0)
    #expect(registers.read32(at: 0x24) == 7)
  }

  @Test func theLineStaysUpUntilAllIsAcknowledged() throws {
    try bench.function.enableInterrupts(.intx, eventfds: [bench.eventfd])
    registers.write32(5, at: 0x60)
    #expect(bench.signals() == 1)
    registers.write32(1, at: 0x64)
    try bench.function.unmaskINTx()
    #expect(bench.signals() == 1)
    registers.write32(4, at: 0x64)
    try bench.function.unmaskINTx()
    #expect(bench.signals() == 0)
  }

  @Test func theCapabilityIsMSI() throws {
    let capability = try #require(try bench.function.capabilities().first)
    #expect(capability.identifier == PCICapability.msi)
    #expect(try bench.function.interrupts == InterruptCapability(kind: .msi, vectors: 1))
    #expect(try bench.function.readConfiguration(at: capability.offset + 2, width: .word) == 0x80)
    try bench.function.enableInterrupts(.msi, eventfds: [-1])
    #expect(try bench.function.readConfiguration(at: capability.offset + 2, width: .word) == 0x81)
    try bench.function.disableInterrupts(.msi)
    #expect(try bench.function.readConfiguration(at: capability.offset + 2, width: .word) == 0x80)
    #expect(throws: PCIError.interruptsUnsupported(kind: .msix, vectors: 1)) {
      try bench.function.enableInterrupts(.msix, eventfds: [-1])
    }
  }
}
