import PCI

/// A device model whose answers on the way to the driver can be replaced, and whose memory can be written behind its
/// back: a hostile device, for tests of drivers. The model stays as strict as it is. One thread.
public final class HostileFunction: PCIFunction {
  public let name: String
  /// nil while the device is honest.
  public var hostility: (any Hostility)?
  /// Sizes of regions, where they are not the model's; 0 for none.
  public var regionByteCounts: [Int: UInt64] = [:]
  /// What is said of interrupts, where it is not the model's.
  public var offeredInterrupts: InterruptCapability?
  /// Register accesses so far: whoever counts sees a driver that does not come to an end.
  public private(set) var accessCount: UInt64 = 0
  private let honest: InProcessFunction

  public init(_ model: EmulatedFunction, name: String = "hostile") {
    honest = InProcessFunction(model)
    self.name = name
  }

  public var model: EmulatedFunction { honest.model }

  /// The model works after each register that is written, for drivers that wait for an answer.
  public var stepsAfterWrites: Bool {
    get { honest.stepsAfterWrites }
    set { honest.stepsAfterWrites = newValue }
  }

  /// Lets the model work, and asks to be notified of more.
  /// - Returns: whether there was anything to do.
  @discardableResult
  public func step() -> Bool { honest.step() }

  private func answer(_ access: RegisterAccess, honest value: UInt64) -> UInt64 {
    accessCount &+= 1
    return hostility?.answer(access, honest: value) ?? value
  }

  private func accepts(_ access: RegisterAccess, _ value: UInt64) -> Bool {
    accessCount &+= 1
    return hostility?.accepts(access, value) ?? true
  }

  public func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    let access = RegisterAccess(configurationAt: offset, width)
    let value = answer(
      access, honest: UInt64(try honest.readConfiguration(at: offset, width: width)))
    return UInt32(truncatingIfNeeded: value) & .max >> UInt32(32 - 8 * width.rawValue)
  }

  public func writeConfiguration(
    _ value: UInt32, at offset: Int, width: RegisterWidth
  ) throws(PCIError) {
    guard accepts(RegisterAccess(configurationAt: offset, width), UInt64(value)) else { return }
    try honest.writeConfiguration(value, at: offset, width: width)
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
        return function.answer(access, honest: function.honest.load(access))
      },
      store: { context, bar, offset, byteCount, value in
        let function = Unmanaged<HostileFunction>.fromOpaque(context).takeUnretainedValue()
        let access = RegisterAccess(bar: Int(bar), offset: offset, byteCount: Int(byteCount))
        if function.accepts(access, value) { function.honest.store(value, access) }
      })
    return RegisterRegion(bar: bar, byteCount: byteCount, calls: calls)
  }

  public var interrupts: InterruptCapability {
    get throws(PCIError) {
      if let offeredInterrupts { return offeredInterrupts }
      return try honest.interrupts
    }
  }

  public func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {
    try honest.enableInterrupts(kind, eventfds: eventfds)
  }

  public func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {
    try honest.disableInterrupts(kind)
  }

  public func unmaskINTx() throws(PCIError) { try honest.unmaskINTx() }

  public func reset() throws(PCIError) { try honest.reset() }
}
