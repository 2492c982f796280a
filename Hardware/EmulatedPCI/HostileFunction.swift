import PCI

/// One access of a driver to a register or to configuration space.
public struct RegisterAccess: Sendable, Equatable {
  /// -1 for configuration space.
  public var bar: Int
  public var offset: UInt64
  public var byteCount: Int

  public static let configurationSpace = -1

  public init(bar: Int, offset: UInt64, byteCount: Int) {
    self.bar = bar
    self.offset = offset
    self.byteCount = byteCount
  }
}

/// What makes a function lie.
public protocol Hostility: AnyObject {
  /// What a read gives.
  /// - Parameter honest: what the model says.
  func answer(_ access: RegisterAccess, honest: UInt64) -> UInt64
  /// Whether a write reaches the model.
  func accepts(_ access: RegisterAccess, _ value: UInt64) -> Bool
}

/// A device model whose answers on the way to the driver can be replaced, and whose memory can be written behind its
/// back: a hostile device, for tests of drivers. The model stays as strict as it is. One thread.
public final class HostileFunction: PCIFunction {
  public let model: EmulatedFunction
  public let name: String
  /// nil while the device is honest.
  public var hostility: (any Hostility)?
  /// Sizes of regions, where they are not the model's; 0 for none.
  public var regionByteCounts: [Int: UInt64] = [:]
  /// What is said of interrupts, where it is not the model's.
  public var offeredInterrupts: InterruptCapability?
  /// The model works after each register that is written, for drivers that wait for an answer.
  public var stepsAfterWrites = false
  /// Register accesses so far: whoever counts sees a driver that does not come to an end.
  public private(set) var accessCount: UInt64 = 0

  public init(_ model: EmulatedFunction, name: String = "hostile") {
    self.model = model
    self.name = name
  }

  /// Lets the model work, and asks to be notified of more.
  /// - Returns: whether there was anything to do.
  @discardableResult
  public func step() -> Bool {
    let worked = model.step()
    let isQuiet = (model as? any PollingModel)?.prepareToSleep() ?? true
    return worked || !isQuiet
  }

  private func load(_ access: RegisterAccess, _ honest: UInt64) -> UInt64 {
    accessCount &+= 1
    return hostility?.answer(access, honest: honest) ?? honest
  }

  private func arrives(_ access: RegisterAccess, _ value: UInt64) -> Bool {
    accessCount &+= 1
    return hostility?.accepts(access, value) ?? true
  }

  public func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    let access = RegisterAccess(
      bar: RegisterAccess.configurationSpace, offset: UInt64(offset), byteCount: width.rawValue)
    let value = load(access, UInt64(model.readConfiguration(at: offset, byteCount: width.rawValue)))
    return UInt32(truncatingIfNeeded: value) & .max >> UInt32(32 - 8 * width.rawValue)
  }

  public func writeConfiguration(
    _ value: UInt32, at offset: Int, width: RegisterWidth
  ) throws(PCIError) {
    let access = RegisterAccess(
      bar: RegisterAccess.configurationSpace, offset: UInt64(offset), byteCount: width.rawValue)
    guard arrives(access, UInt64(value)) else { return }
    model.writeConfiguration(value, at: offset, byteCount: width.rawValue)
  }

  public func openRegion(bar: Int) throws(PCIError) -> RegisterRegion {
    guard let byteCount = regionByteCounts[bar] ?? model.bars[bar], byteCount > 0 else {
      throw .noRegion(bar: bar)
    }
    // The function outlives its regions: whoever uses them holds it.
    let calls = RegisterCalls(
      context: Unmanaged.passUnretained(self).toOpaque(),
      load: { context, bar, offset, byteCount in
        let function = Unmanaged<HostileFunction>.fromOpaque(context).takeUnretainedValue()
        let access = RegisterAccess(bar: Int(bar), offset: offset, byteCount: Int(byteCount))
        return function.load(
          access,
          function.model.readRegion(bar: access.bar, offset: offset, byteCount: access.byteCount))
      },
      store: { context, bar, offset, byteCount, value in
        let function = Unmanaged<HostileFunction>.fromOpaque(context).takeUnretainedValue()
        let access = RegisterAccess(bar: Int(bar), offset: offset, byteCount: Int(byteCount))
        guard function.arrives(access, value) else { return }
        function.model.writeRegion(
          bar: access.bar, offset: offset, byteCount: access.byteCount, value: value)
        if function.stepsAfterWrites { function.step() }
      })
    return RegisterRegion(bar: bar, byteCount: byteCount, calls: calls)
  }

  public var interrupts: InterruptCapability {
    get throws(PCIError) {
      offeredInterrupts
        ?? InterruptCapability(kind: model.interruptKind, vectors: model.interrupts.vectorCount)
    }
  }

  public func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {
    guard kind == model.interruptKind, eventfds.count <= model.interrupts.vectorCount else {
      throw .interruptsUnsupported(kind: kind, vectors: eventfds.count)
    }
    for (vector, eventfd) in eventfds.enumerated() { model.interrupts.connect(vector, eventfd) }
    model.setMessageInterrupts(true)
  }

  public func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {
    model.interrupts.disconnectAll()
    if kind == model.interruptKind { model.setMessageInterrupts(false) }
  }

  public func unmaskINTx() throws(PCIError) { model.interrupts.setLineMasked(false) }

  public func reset() throws(PCIError) { model.reset() }
}
