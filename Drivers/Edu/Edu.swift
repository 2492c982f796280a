import Driver
import Memory
import PCI

/// The driver for QEMU's educational function (QEMU documentation, "EDU device"): registers, an engine that computes
/// factorials, a DMA engine with a buffer of 4 KiB, and one interrupt. One thread. Read it from top to bottom.
public struct Edu: ~Copyable {
  // 1. Which functions it drives.
  public static let name = "edu"
  public static let matches = [PCIMatch(vendor: 0x1234, device: 0x11e8)]

  // 2. What they look like: registers of 32 bits in BAR 0.
  private enum Register {
    static let identification = 0x00
    static let liveness = 0x04
    static let factorial = 0x08
    static let status = 0x20
    static let interruptStatus = 0x24
    static let interruptAcknowledge = 0x64
    static let dmaSource = 0x80
    static let dmaDestination = 0x88
    static let dmaByteCount = 0x90
    static let dmaCommand = 0x98
  }
  // Bits of the status and of the DMA command. Writing the busy bit to the command starts a transfer.
  private static let (isBusy, interruptAfterFactorial): (UInt32, UInt32) = (0x01, 0x80)
  private static let (fromDevice, interruptAfterTransfer): (UInt32, UInt32) = (0x02, 0x04)
  /// Where the device's own buffer lies for its DMA engine, which has 28 address lines.
  private static let buffer = 0x40000
  private static let reach: UInt64 = 1 << 28
  public static let (bufferByteCount, maximumTransfer) = (4096, 2048)

  private let function: any PCIFunction
  private let registers: RegisterWindow
  private let eventfd: Int32
  private var interruptKind: InterruptKind?

  // 3. Open the registers and see that the right device answers. It cannot reach memory yet.
  public init(_ resources: consuming DriverResources) throws(EduError) {
    let (function, registers): (any PCIFunction, RegisterWindow)
    do throws(PCIError) {
      function = resources.function
      try function.setBusMaster(false)
      registers = try function.openRegion(bar: 0).window(at: 0, byteCount: 0xa0)
    } catch { throw .pci(error) }
    let identification = registers.read32(at: Register.identification)
    // Above these 16 bits are its major and minor version.
    guard identification & 0xffff == 0x00ed else { throw .notEdu(identification: identification) }
    // It answers with the complement of what it is told.
    registers.write32(0x1234_5678, at: Register.liveness)
    let answer = registers.read32(at: Register.liveness)
    guard answer == ~0x1234_5678 else { throw .notAlive(answer: answer) }
    (self.function, self.registers) = (function, registers)
    eventfd = resources.interrupts.queues.first ?? -1
  }

  // 4. Clear what is left of earlier interrupts, connect ours, and let the device reach memory: a message-signalled
  // interrupt is a write to memory too.
  public mutating func start() throws(EduError) {
    registers.write32(.max, at: Register.interruptAcknowledge)
    do throws(PCIError) {
      if eventfd >= 0 {
        let kind = try function.interrupts.kind
        try function.enableInterrupts(kind, eventfds: [eventfd])
        interruptKind = kind
      }
      try function.setBusMaster(true)
    } catch { throw .pci(error) }
    let status = interruptKind == nil ? 0 : Self.interruptAfterFactorial
    registers.write32(status, at: Register.status)
  }

  // 5. The device works while we wait: never without a limit.
  /// - Returns: the factorial modulo 2^32.
  public func factorial(of number: UInt32) throws(EduError) -> UInt32 {
    registers.write32(number, at: Register.factorial)
    try waitWhileBusy(Register.status)
    return registers.read32(at: Register.factorial)
  }

  private func waitWhileBusy(_ register: Int) throws(EduError) {
    let deadline = Deadline(milliseconds: 2000)
    // A device that is gone reads as ones: busy for ever.
    while registers.read32(at: register) & Self.isBusy != 0 {
      if deadline.hasPassed { throw .timeout }
      deadline.pause()
    }
  }

  // 6. DMA: from memory to the device's buffer, and back.
  public func copyToDevice(_ memory: DMARange, at offset: Int = 0) throws(EduError) {
    try transfer(memory, at: offset, Self.isBusy)
  }

  public func copyFromDevice(_ memory: DMARange, at offset: Int = 0) throws(EduError) {
    try transfer(memory, at: offset, Self.isBusy | Self.fromDevice)
  }

  private func transfer(_ memory: DMARange, at offset: Int, _ command: UInt32) throws(EduError) {
    let count = memory.byteCount
    // Older QEMU takes a transfer that ends with the buffer for one that leaves it, and aborts.
    guard count > 0, count <= Self.maximumTransfer, offset >= 0,
      offset < Self.bufferByteCount - count
    else { throw .outsideBuffer(offset: offset, byteCount: count) }
    guard memory.iova <= Self.reach - UInt64(count) else { throw .outOfReach(iova: memory.iova) }
    // The device knows the memory by its IOVA, this process by its address.
    let (inMemory, inDevice) = (UInt32(memory.iova), UInt32(Self.buffer + offset))
    let isOutward = command & Self.fromDevice != 0
    registers.write32(isOutward ? inDevice : inMemory, at: Register.dmaSource)
    registers.write32(isOutward ? inMemory : inDevice, at: Register.dmaDestination)
    registers.write32(UInt32(count), at: Register.dmaByteCount)
    memory.synchronize()
    let interrupt = interruptKind == nil ? 0 : Self.interruptAfterTransfer
    registers.write32(command | interrupt, at: Register.dmaCommand)
    try waitWhileBusy(Register.dmaCommand)
    memory.synchronize()
  }

  // 7. When the eventfd has fired.
  /// - Returns: why: 1 for a factorial, 0x100 for a transfer, or both.
  public func takeInterrupt() throws(EduError) -> UInt32 {
    let reasons = registers.read32(at: Register.interruptStatus)
    registers.write32(reasons, at: Register.interruptAcknowledge)
    // The line is masked when it fires; a message is not.
    guard interruptKind == .intx else { return reasons }
    do { try function.unmaskINTx() } catch { throw .pci(error) }
    return reasons
  }

  // 8. When this returns the device reaches no memory any more. A second call does no harm.
  public mutating func stop() {
    registers.write32(0, at: Register.status)
    // A function that is gone needs no stopping.
    try? function.setBusMaster(false)
    if let interruptKind { try? function.disableInterrupts(interruptKind) }
    interruptKind = nil
  }
}
