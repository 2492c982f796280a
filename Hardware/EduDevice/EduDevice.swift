import EmulatedPCI
import PCI

/// QEMU's educational function (QEMU documentation, "EDU device"), strict: what the driver does against its
/// description is recorded in ``violations``.
///
/// Its engines work while the driver looks: after ``Options/looksUntilDone`` reads of their busy bit, or in ``step()``.
public final class EduDevice: EmulatedFunction, PollingModel {
  public struct Options: Sendable {
    public var identification: UInt32 = 0x0100_00ed
    /// Reads of a busy bit before the work is done; nil means that it never is, but by ``step()``.
    public var looksUntilDone: Int? = 3
    public init() {}
  }

  public let options: Options
  public private(set) var violations: [EduViolation] = []
  /// The device's own memory, 4 KiB.
  public private(set) var buffer = [UInt8](repeating: 0, count: 4096)
  private static let bufferAddress: UInt64 = 0x40000
  private static let addressMask: UInt64 = (1 << 28) - 1

  private var liveness: UInt32 = 0
  private var factorial: UInt32 = 0
  private var raisesAfterFactorial = false
  private var interruptStatus: UInt32 = 0
  private var source: UInt64 = 0
  private var destination: UInt64 = 0
  private var byteCount: UInt64 = 0
  private var command = Command()
  private var isComputing = false
  private var looks = 0

  private struct Command: OptionSet {
    var rawValue: UInt64 = 0
    static let run = Command(rawValue: 1)
    static let toMemory = Command(rawValue: 2)
    static let interrupt = Command(rawValue: 4)
    static let all: Command = [.run, .toMemory, .interrupt]
  }

  public init(options: Options = Options()) {
    self.options = options
    super.init(
      configuration: ConfigurationSpace(
        vendor: 0x1234, device: 0x11e8, classCode: 0xff_0000, revision: 0x10, subsystem: 0x1100),
      bars: [0: 1 << 20])
  }

  // MARK: Registers

  public override func readRegister(bar: Int, offset: UInt64, byteCount: Int) -> UInt64 {
    guard isRightWidth(offset, byteCount) else { return .max }
    switch offset {
    case 0x00: return UInt64(options.identification)
    case 0x04: return UInt64(liveness)
    case 0x08:
      if isComputing { violations.append(.readTooEarly(offset: offset)) }
      return UInt64(factorial)
    case 0x20:
      if isComputing { look() }
      return (isComputing ? 1 : 0) | (raisesAfterFactorial ? 0x80 : 0)
    case 0x24: return UInt64(interruptStatus)
    case 0x60, 0x64:
      violations.append(.readOfWriteOnly(offset: offset))
      return .max
    case 0x80: return source
    case 0x88: return destination
    case 0x90: return self.byteCount
    case 0x98:
      if command.contains(.run) { look() }
      return command.rawValue
    default:
      violations.append(.unknownRegister(offset: offset))
      return .max
    }
  }

  public override func writeRegister(bar: Int, offset: UInt64, byteCount: Int, value: UInt64) {
    guard isRightWidth(offset, byteCount) else { return }
    let word = UInt32(truncatingIfNeeded: value)
    switch offset {
    case 0x00, 0x24: violations.append(.writeToReadOnly(offset: offset))
    case 0x04: liveness = ~word
    case 0x08: startFactorial(of: word)
    case 0x20:
      if word & ~0x80 != 0 { violations.append(.unknownBits(offset: offset, value: value)) }
      raisesAfterFactorial = word & 0x80 != 0
    case 0x60: raise(word)
    case 0x64:
      interruptStatus &= ~word
      if interruptStatus == 0 { interrupts.setLine(false) }
    case 0x80, 0x88, 0x90, 0x98:
      if command.contains(.run) {
        violations.append(.busy(offset: offset))
      } else {
        writeTransfer(offset, value)
      }
    default: violations.append(.unknownRegister(offset: offset))
    }
  }

  private func isRightWidth(_ offset: UInt64, _ byteCount: Int) -> Bool {
    if byteCount == 4 || byteCount == 8 && offset >= 0x80 { return true }
    violations.append(.width(offset: offset, byteCount: byteCount))
    return false
  }

  // MARK: Engines

  private func startFactorial(of number: UInt32) {
    if isComputing {
      violations.append(.busy(offset: 0x08))
      return
    }
    factorial = number
    isComputing = true
    looks = 0
  }

  private func writeTransfer(_ offset: UInt64, _ value: UInt64) {
    switch offset {
    case 0x80: source = value
    case 0x88: destination = value
    case 0x90: byteCount = value
    default:
      let new = Command(rawValue: value)
      if !Command.all.isSuperset(of: new) {
        violations.append(.unknownBits(offset: offset, value: value))
      }
      // Without the lowest bit nothing happens.
      guard new.contains(.run) else { return }
      command = new.intersection(.all)
      looks = 0
    }
  }

  private func look() {
    guard let limit = options.looksUntilDone else { return }
    looks += 1
    if looks > limit { finish() }
  }

  /// Finishes what the engines are at.
  public override func step() -> Bool {
    let wasBusy = isBusy
    finish()
    return wasBusy
  }

  private var isBusy: Bool { isComputing || command.contains(.run) }
  public func prepareToSleep() -> Bool { !isBusy }
  public func wake() {}

  private func finish() {
    if isComputing {
      // From 34 on, 2^32 divides it.
      factorial = factorial >= 34 ? 0 : (0..<factorial).reduce(1) { $0 &* ($1 + 1) }
      isComputing = false
      if raisesAfterFactorial { raise(0x001) }
    }
    if command.contains(.run) {
      transfer()
      command.remove(.run)
      if command.contains(.interrupt) { raise(0x100) }
    }
  }

  private func transfer() {
    let isOutward = command.contains(.toMemory)
    let inBuffer = isOutward ? source : destination
    let iova = isOutward ? destination : source
    guard byteCount > 0 else {
      violations.append(.emptyTransfer)
      return
    }
    guard inBuffer >= Self.bufferAddress, byteCount < UInt64(buffer.count),
      inBuffer - Self.bufferAddress < UInt64(buffer.count) - byteCount
    else {
      violations.append(.outsideBuffer(address: inBuffer, byteCount: byteCount))
      return
    }
    guard configuration.isBusMaster else {
      violations.append(.noBusMaster)
      return
    }
    if iova & ~Self.addressMask != 0 { violations.append(.beyondMask(iova: iova)) }
    let start = Int(inBuffer - Self.bufferAddress)
    buffer.withUnsafeMutableBytes { all in
      let part = UnsafeMutableRawBufferPointer(rebasing: all[start..<start + Int(byteCount)])
      // What is not mapped, the IOMMU keeps a record of.
      if isOutward {
        _ = iommu.write(iova & Self.addressMask, from: UnsafeRawBufferPointer(part))
      } else {
        _ = iommu.read(iova & Self.addressMask, into: part)
      }
    }
  }

  // MARK: Interrupt

  /// By message where that is on, else by the line, which stays up until all reasons are acknowledged.
  private func raise(_ reasons: UInt32) {
    interruptStatus |= reasons
    guard interruptStatus != 0 else { return }
    guard interrupts.isEnabled else { return interrupts.setLine(true) }
    if configuration.isBusMaster {
      interrupts.trigger(0)
    } else {
      violations.append(.noBusMaster)
    }
  }

  public override func resetModel() {
    liveness = 0
    factorial = 0
    raisesAfterFactorial = false
    interruptStatus = 0
    (source, destination, byteCount) = (0, 0, 0)
    command = []
    isComputing = false
  }
}
