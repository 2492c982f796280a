import PCI

/// Base of all device models: a PCI function with configuration space, BARs, interrupts and DMA, independent of how it
/// is reached (in process, vfio-user). A model overrides the register handlers, `resetModel` and `step`.
///
/// Deterministic and single-threaded: it does something only when it is called.
open class EmulatedFunction {
  public var configuration: ConfigurationSpace
  public let iommu = CheckedIOMMU()
  public var interrupts: InterruptController
  /// Bytes of each memory BAR.
  public let bars: [Int: UInt64]
  /// MSI-X or MSI; every function has the INTx line besides.
  public let interruptKind: InterruptKind
  /// The same by number, 0 for none: looked at with every access.
  private let barByteCounts: [UInt64]
  private let interruptBAR: Int?
  private let interruptCapability: Int
  private static let pendingOffset = 0x800

  /// A function with MSI-X.
  /// - Parameters:
  ///   - bars: sizes of the model's own BARs, powers of two.
  ///   - interruptBAR: where the MSI-X table lies: a further BAR of 4 KiB.
  public init(
    configuration: ConfigurationSpace, bars: [Int: UInt64], vectors: Int, interruptBAR: Int
  ) {
    var space = configuration
    var all = bars
    all[interruptBAR] = 4096
    for (bar, byteCount) in all { space.addMemoryBAR(bar, byteCount: UInt32(byteCount)) }
    // PCI Local Bus 3.0, 6.8.2: message control, then where table and pending bits are.
    let control = UInt16(vectors - 1)
    let table = UInt32(interruptBAR)
    let pending = UInt32(interruptBAR) | UInt32(Self.pendingOffset)
    var body = [UInt8(truncatingIfNeeded: control), UInt8(control >> 8)]
    for word in [table, pending] {
      body += (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
    }
    interruptCapability = space.addCapability(
      PCICapability.msix, body, writable: [0, 0xc0])
    space.seal()
    self.configuration = space
    self.bars = all
    barByteCounts = (0..<6).map { all[$0] ?? 0 }
    self.interruptBAR = interruptBAR
    interruptKind = .msix
    interrupts = InterruptController(vectors: vectors)
  }

  /// A function with a single MSI vector (PCI Local Bus 3.0, 6.8.1).
  public init(configuration: ConfigurationSpace, bars: [Int: UInt64]) {
    var space = configuration
    for (bar, byteCount) in bars { space.addMemoryBAR(bar, byteCount: UInt32(byteCount)) }
    // Message control with 64-bit addresses, then the address and the data.
    interruptCapability = space.addCapability(
      PCICapability.msi, [0x80, 0] + [UInt8](repeating: 0, count: 10),
      writable: [0x71, 0, 0xfc] + [UInt8](repeating: 0xff, count: 9))
    space.seal()
    self.configuration = space
    self.bars = bars
    barByteCounts = (0..<6).map { bars[$0] ?? 0 }
    interruptBAR = nil
    interruptKind = .msi
    interrupts = InterruptController(vectors: 1)
  }

  // MARK: What a model overrides

  /// A register of one of the model's BARs, wholly inside it.
  open func readRegister(bar: Int, offset: UInt64, byteCount: Int) -> UInt64 { 0 }
  open func writeRegister(bar: Int, offset: UInt64, byteCount: Int, value: UInt64) {}
  /// Back to power-on, as far as the model goes.
  open func resetModel() {}
  /// Configuration space outside the model's sight was read or written: capabilities with a life of their own.
  open func willReadConfiguration(at offset: Int, byteCount: Int) {}
  open func didWriteConfiguration(at offset: Int, byteCount: Int) {}
  /// Does a bounded amount of work.
  /// - Returns: whether there was any.
  open func step() -> Bool { false }

  // MARK: How it is reached

  public func readConfiguration(at offset: Int, byteCount: Int) -> UInt32 {
    willReadConfiguration(at: offset, byteCount: byteCount)
    return configuration.read(at: offset, byteCount: byteCount)
  }

  public func writeConfiguration(_ value: UInt32, at offset: Int, byteCount: Int) {
    configuration.write(value, at: offset, byteCount: byteCount)
    iommu.isBusMaster = configuration.isBusMaster
    let control = configuration.read(at: interruptCapability + 2, byteCount: 2)
    interrupts.isEnabled = control & interruptEnable != 0
    interrupts.functionIsMasked = interruptKind == .msix && control & 0x4000 != 0
    didWriteConfiguration(at: offset, byteCount: byteCount)
  }

  /// Turns message-signalled interrupts on or off in their capability, as the kernel's VFIO does it for its user.
  public func setMessageInterrupts(_ on: Bool) {
    let at = interruptCapability + 2
    let control = configuration.read(at: at, byteCount: 2)
    writeConfiguration(
      on ? control | interruptEnable : control & ~interruptEnable, at: at, byteCount: 2)
  }

  private var interruptEnable: UInt32 { interruptKind == .msix ? 0x8000 : 1 }

  /// Reads from a BAR; 1, 2, 4 or 8 bytes. What lies past its end reads as ones.
  public func readRegion(bar: Int, offset: UInt64, byteCount: Int) -> UInt64 {
    guard isInside(bar, offset, byteCount) else { return .max }
    if bar != interruptBAR { return readRegister(bar: bar, offset: offset, byteCount: byteCount) }
    let word = UInt64(
      interrupts.read32(at: Int(offset) & ~3, pendingOffset: Self.pendingOffset))
    if byteCount == 8 {
      return word | UInt64(
        interrupts.read32(at: Int(offset) + 4, pendingOffset: Self.pendingOffset)) << 32
    }
    return word >> (8 * (offset & 3))
  }

  public func writeRegion(bar: Int, offset: UInt64, byteCount: Int, value: UInt64) {
    guard isInside(bar, offset, byteCount) else { return }
    if bar != interruptBAR {
      writeRegister(bar: bar, offset: offset, byteCount: byteCount, value: value)
    } else if byteCount == 8 {
      interrupts.write32(UInt32(truncatingIfNeeded: value), at: Int(offset))
      interrupts.write32(UInt32(truncatingIfNeeded: value >> 32), at: Int(offset) + 4)
    } else if byteCount == 4 {
      interrupts.write32(UInt32(truncatingIfNeeded: value), at: Int(offset))
    }
  }

  private func isInside(_ bar: Int, _ offset: UInt64, _ byteCount: Int) -> Bool {
    guard bar >= 0, bar < barByteCounts.count else { return false }
    let size = barByteCounts[bar]
    return size > 0 && offset <= size && UInt64(byteCount) <= size - offset
  }

  /// Function-level reset.
  public func reset() {
    configuration.reset()
    iommu.isBusMaster = false
    interrupts.reset()
    resetModel()
  }
}
