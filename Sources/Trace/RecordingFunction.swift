import Glibc
import Memory
import PCI

/// Any function, with a record of all that a driver does to it and gets from it: a ``Trace``. The driver does not
/// notice, except that it takes longer. One call at a time (``exclusion``).
///
/// Registers that are mapped are reached through calls here, so that each access is seen. What the device writes to
/// memory is seen by comparing memory before and after each access: what changes while the driver waits for an access
/// is the device's, everything else either side's. A replay checks what the driver does to registers, not what it
/// writes to memory.
///
/// A device works on while a mark is made. What it writes between the recorder's last look, at the few pages of rings
/// that change, and the driver's, a microsecond later, is recorded before the mark where a call finds something that was
/// made before with the same memory. Elsewhere it is recorded too late: such a run, which is rare, diverges when it is
/// replayed unchanged, and has to be recorded again.
public final class RecordingFunction: TracedFunction {
  public let exclusion = CallExclusion()
  private let function: any PCIFunction
  private let write: (String) -> Void
  private let settling: UInt32
  private var watches: [MemoryWatch]
  private var windows: [Int: RegisterWindow] = [:]
  private var vectors: [Int32] = []
  /// The last entry, as long as it may be repeated.
  private var last: (request: TraceRequest, answer: TraceAnswer, repeats: Int)?
  /// Calls that were marked since the last access, interrupt, or change in memory that is watched as a whole.
  private var calls: Set<String> = []
  /// Whether the last mark's call was among them: it finds what has been written since the mark, or nothing.
  private var isRepeated = false

  public var name: String { function.name }

  /// A settling time for devices that work by themselves, in microseconds. QEMU's virtio-net answers commands within 20.
  public static let hardwareSettling: UInt32 = 200

  /// - Parameters:
  ///   - memory: what the device may reach.
  ///   - settling: microseconds to wait after each register write before memory is compared: what a device does at
  ///     once in answer to a doorbell is then recorded as its answer. Without that, a driver that goes on to wait for
  ///     memory alone waits in vain in a replay. 0 for models that answer within the call.
  ///   - write: gets each line, with its end, as soon as it is known not to repeat.
  public init(
    _ function: any PCIFunction, memory: [TracedMemory] = [], settling: UInt32 = 0,
    write: @escaping (String) -> Void
  ) {
    self.function = function
    self.write = write
    self.settling = settling
    watches = memory.map { MemoryWatch($0) }
    write(Trace.header + "\n")
    for part in memory { put(.mapping(part.mapping)) }
  }

  deinit { finish() }

  /// Writes the last line. The record may go on.
  public func finish() {
    guard let last else { return }
    put(.exchange(last.request, last.answer, repeats: last.repeats))
    self.last = nil
  }

  private func put(_ entry: TraceEntry) { write("\(entry)\n") }

  private func record(_ request: TraceRequest, _ answer: TraceAnswer) {
    calls = []
    isRepeated = false
    if let last, last.request == request, last.answer == answer, request.mayRepeat {
      self.last?.repeats += 1
    } else {
      finish()
      last = (request, answer, 1)
    }
  }

  private func recordMemory(byDevice: Bool) {
    // A look takes its time, in which the device goes on: the few pages that they talk by are looked at again, so that
    // the driver's own look follows at once. Bounded: a device that writes without end is not waited for.
    for _ in 0..<8 {
      for index in watches.indices {
        for change in watches[index].changes() {
          finish()
          if watches[index].isWhole { calls = [] }
          put(.memory(iova: change.iova, change.bytes, byDevice: byDevice))
        }
      }
      if !watches.contains(where: \.hasNews) { return }
    }
  }

  /// Calls the function, between two looks at memory.
  private func pass(
    _ request: TraceRequest, _ call: () throws(PCIError) -> TraceAnswer
  ) throws(PCIError) {
    recordMemory(byDevice: false)
    do throws(PCIError) {
      record(request, try call())
    } catch {
      record(request, .failure(error))
      recordMemory(byDevice: true)
      throw error
    }
    recordMemory(byDevice: true)
  }

  // MARK: What passes without a call

  public func mark(_ label: String) {
    finish()
    recordMemory(byDevice: false)
    last = (.mark(label), .none, 1)
    isRepeated = !calls.insert(label).inserted
    // The driver's own look follows at once.
    for _ in 0..<8 where watches.contains(where: \.hasNews) { recordMemoryBeforeMark() }
  }

  public func outcome(_ label: String) {
    // What came has been written since the mark.
    if isRepeated { recordMemoryBeforeMark() }
    recordMemory(byDevice: false)
    finish()
    last = (.mark(label), .none, 1)
    isRepeated = false
  }

  /// The last mark waits for its line.
  private func recordMemoryBeforeMark() {
    guard let mark = last, case .mark(let label) = mark.request else { return }
    last = nil
    recordMemory(byDevice: false)
    last = mark
    calls.insert(label)
    isRepeated = false
  }

  public func watch(_ part: DMARange) {
    for index in watches.indices { watches[index].add(part) }
  }

  public func interruptTaken(_ eventfd: Int32) {
    exclusion.enter()
    defer { exclusion.leave() }
    guard let vector = vectors.firstIndex(of: eventfd) else { return }
    recordMemory(byDevice: false)
    record(.interrupt(vector: vector), .none)
  }

  // MARK: The function

  public func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    var value: UInt32 = 0
    try pass(.readConfiguration(offset: offset, width)) { () throws(PCIError) in
      value = try function.readConfiguration(at: offset, width: width)
      return .value(UInt64(value))
    }
    return value
  }

  public func writeConfiguration(
    _ value: UInt32, at offset: Int, width: RegisterWidth
  ) throws(PCIError) {
    try pass(.writeConfiguration(offset: offset, width, value)) { () throws(PCIError) in
      try function.writeConfiguration(value, at: offset, width: width)
      return .none
    }
  }

  public func openRegion(bar: Int) throws(PCIError) -> RegisterRegion {
    var byteCount: UInt64 = 0
    try pass(.openRegion(bar: bar)) { () throws(PCIError) in
      let region = try function.openRegion(bar: bar)
      byteCount = region.byteCount
      windows[bar] = try region.window(at: 0, byteCount: byteCount)
      return .value(byteCount)
    }
    // The function outlives its regions: whoever uses them holds it.
    let calls = RegisterCalls(
      context: Unmanaged.passUnretained(self).toOpaque(),
      load: { context, bar, offset, byteCount in
        Unmanaged<RecordingFunction>.fromOpaque(context).takeUnretainedValue()
          .load(Int(bar), offset, Int(byteCount))
      },
      store: { context, bar, offset, byteCount, value in
        Unmanaged<RecordingFunction>.fromOpaque(context).takeUnretainedValue()
          .store(value, Int(bar), offset, Int(byteCount))
      })
    return RegisterRegion(bar: bar, byteCount: byteCount, calls: calls)
  }

  private func load(_ bar: Int, _ offset: UInt64, _ byteCount: Int) -> UInt64 {
    guard let window = windows[bar], let width = RegisterWidth(rawValue: byteCount) else {
      return .max
    }
    recordMemory(byDevice: false)
    let value: UInt64 =
      switch width {
      case .byte: UInt64(window.read8(at: Int(offset)))
      case .word: UInt64(window.read16(at: Int(offset)))
      case .dword: UInt64(window.read32(at: Int(offset)))
      }
    record(.read(bar: bar, offset: offset, width), .value(value))
    recordMemory(byDevice: true)
    return value
  }

  private func store(_ value: UInt64, _ bar: Int, _ offset: UInt64, _ byteCount: Int) {
    guard let window = windows[bar], let width = RegisterWidth(rawValue: byteCount) else { return }
    recordMemory(byDevice: false)
    switch width {
    case .byte: window.write8(UInt8(truncatingIfNeeded: value), at: Int(offset))
    case .word: window.write16(UInt16(truncatingIfNeeded: value), at: Int(offset))
    case .dword: window.write32(UInt32(truncatingIfNeeded: value), at: Int(offset))
    }
    record(.write(bar: bar, offset: offset, width, value), .none)
    if settling > 0 { usleep(settling) }
    recordMemory(byDevice: true)
  }

  public var interrupts: InterruptCapability {
    get throws(PCIError) {
      var offered = InterruptCapability(kind: .intx, vectors: 0)
      try pass(.interruptCapability) { () throws(PCIError) in
        offered = try function.interrupts
        return .capability(offered)
      }
      return offered
    }
  }

  public func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {
    try pass(.enable(kind, connected: eventfds.map { $0 >= 0 })) { () throws(PCIError) in
      try function.enableInterrupts(kind, eventfds: eventfds)
      return .none
    }
    vectors = eventfds
  }

  public func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {
    try pass(.disable(kind)) { () throws(PCIError) in
      try function.disableInterrupts(kind)
      return .none
    }
  }

  public func unmaskINTx() throws(PCIError) {
    try pass(.unmask) { () throws(PCIError) in
      try function.unmaskINTx()
      return .none
    }
  }

  public func reset() throws(PCIError) {
    try pass(.reset) { () throws(PCIError) in
      try function.reset()
      return .none
    }
  }
}

extension TraceRequest {
  /// Reads that a driver repeats while it waits.
  fileprivate var mayRepeat: Bool {
    switch self {
    case .read, .readConfiguration: true
    default: false
    }
  }
}
