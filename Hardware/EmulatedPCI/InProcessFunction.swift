import PCI

/// A device model as a driver sees it, in the same process: every register access is a call into the model, and the
/// model works only when it is stepped. One thread.
public final class InProcessFunction: PCIFunction {
  public let model: EmulatedFunction
  public let name: String
  /// The model works after each register that is written, for drivers that wait for an answer.
  public var stepsAfterWrites = false
  /// Every register reads as ones and writes are lost, as with a device that was pulled out.
  public var isGone = false
  /// Registers answer, and the model does no work.
  public var isStalled = false
  private let messageInterrupts: Bool
  private let polled: (any PollingModel)?

  /// - Parameter messageInterrupts: false leaves the function its INTx line only.
  public init(
    _ model: EmulatedFunction, name: String = "emulated", messageInterrupts: Bool = true
  ) {
    self.model = model
    polled = model as? any PollingModel
    self.name = name
    self.messageInterrupts = messageInterrupts
  }

  /// Lets the model work, and asks to be notified of more.
  /// - Returns: whether there was anything to do.
  @discardableResult
  public func step() -> Bool {
    if isGone || isStalled { return false }
    let worked = model.step()
    let isQuiet = polled?.prepareToSleep() ?? true
    return worked || !isQuiet
  }

  public func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    isGone
      ? .max >> UInt32(32 - 8 * width.rawValue)
      : model.readConfiguration(
        at: offset, byteCount: width.rawValue)
  }

  public func writeConfiguration(
    _ value: UInt32, at offset: Int, width: RegisterWidth
  ) throws(PCIError) {
    if isGone { return }
    model.writeConfiguration(value, at: offset, byteCount: width.rawValue)
  }

  public func openRegion(bar: Int) throws(PCIError) -> RegisterRegion {
    guard let byteCount = model.bars[bar] else { throw .noRegion(bar: bar) }
    // The function outlives its regions: whoever uses them holds it.
    let calls = RegisterCalls(
      context: Unmanaged.passUnretained(self).toOpaque(),
      load: { context, bar, offset, byteCount in
        Unmanaged<InProcessFunction>.fromOpaque(context).takeUnretainedValue()
          .load(RegisterAccess(bar: Int(bar), offset: offset, byteCount: Int(byteCount)))
      },
      store: { context, bar, offset, byteCount, value in
        Unmanaged<InProcessFunction>.fromOpaque(context).takeUnretainedValue()
          .store(value, RegisterAccess(bar: Int(bar), offset: offset, byteCount: Int(byteCount)))
      })
    return RegisterRegion(bar: bar, byteCount: byteCount, calls: calls)
  }

  func load(_ access: RegisterAccess) -> UInt64 {
    if isGone { return .max }
    return model.readRegion(bar: access.bar, offset: access.offset, byteCount: access.byteCount)
  }

  func store(_ value: UInt64, _ access: RegisterAccess) {
    if isGone { return }
    model.writeRegion(
      bar: access.bar, offset: access.offset, byteCount: access.byteCount, value: value)
    if stepsAfterWrites { step() }
  }

  public var interrupts: InterruptCapability {
    get throws(PCIError) {
      messageInterrupts
        ? InterruptCapability(
          kind: model.interruptKind, vectors: model.interrupts.vectorCount)
        : InterruptCapability(kind: .intx, vectors: 1)
    }
  }

  public func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {
    switch kind {
    case model.interruptKind
    where messageInterrupts && eventfds.count <= model.interrupts.vectorCount:
      for (vector, eventfd) in eventfds.enumerated() { model.interrupts.connect(vector, eventfd) }
      model.setMessageInterrupts(true)
    case .intx where eventfds.count == 1: model.interrupts.connectLine(eventfds[0])
    default: throw .interruptsUnsupported(kind: kind, vectors: eventfds.count)
    }
  }

  public func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {
    model.interrupts.disconnectAll()
    if kind == model.interruptKind { model.setMessageInterrupts(false) }
  }

  public func unmaskINTx() throws(PCIError) { model.interrupts.setLineMasked(false) }

  public func reset() throws(PCIError) { model.reset() }
}
