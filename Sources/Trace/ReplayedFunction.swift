import Glibc
import Memory
import PCI

/// A recorded function: it answers a driver as the ``Trace`` says, and writes to memory and fires interrupts where the
/// recorded device did. So a bug that was seen once becomes a test without the device. One thread.
///
/// The driver has to do what it did in the recording: the same accesses of the same widths, with the same values, in
/// the same order. The first that differs is kept in ``divergence``; from then on the function answers as one that is
/// gone. Whoever drives it repeats what the recording's host did: see ``TracedFunction``.
///
/// `dma` lines and what precedes an `irq` line take place at once when the access above them is done. `mem` lines, which
/// are both sides' work, take place when the next access arrives: what the driver has written itself is then the same.
public final class ReplayedFunction: TracedFunction {
  public let exclusion = CallExclusion()
  /// The first thing that the driver did otherwise than in the recording.
  public struct Divergence: Error, Equatable, Sendable, CustomStringConvertible {
    /// Of the trace; the last one where the trace has ended.
    public var line: Int
    /// As in the trace; nil where it has ended.
    public var expected: String?
    /// What the driver did, in the same form; nil where it has ended.
    public var got: String?

    public var description: String {
      "line \(line): expected \(expected ?? "the end"), got \(got ?? "the end")"
    }
  }

  public let name: String
  public private(set) var divergence: Divergence?
  private let lines: [Trace.Line]
  private let memory: [DMARange]
  private var position = 0
  /// How often the entry at `position` has been asked for already.
  private var repeated = 0
  private var eventfds: [Int32] = []

  /// - Parameter memory: holds the trace's mappings, at the same IOVAs.
  public init(
    _ trace: Trace, memory: [DMARange] = [], name: String = "replayed"
  ) throws(TraceError) {
    for mapping in trace.mappings
    where !memory.contains(where: { $0.holds(mapping.iova, mapping.byteCount) }) {
      throw .missingMemory(mapping)
    }
    self.name = name
    self.memory = memory
    lines = trace.lines.filter { if case .mapping = $0.entry { false } else { true } }
  }

  /// To be called when the driver has done all that it was to do.
  /// - Throws: the first divergence; that something of the trace is left over is one as well.
  public func finish() throws(Divergence) {
    while divergence == nil, position < lines.count {
      if case .memory(let iova, let bytes, _) = lines[position].entry {
        place(bytes, at: iova)
        position += 1
      } else {
        diverge(got: nil)
      }
    }
    if let divergence { throw divergence }
  }

  // MARK: The trace

  /// The driver asks for something: nil where it should have asked for something else.
  private func take(_ request: TraceRequest) -> TraceAnswer? {
    if divergence != nil { return nil }
    while position < lines.count, case .memory(let iova, let bytes, _) = lines[position].entry {
      place(bytes, at: iova)
      position += 1
    }
    guard position < lines.count,
      case .exchange(let expected, let answer, let repeats) = lines[position].entry,
      expected == request
    else {
      diverge(got: "\(request)")
      return nil
    }
    repeated += 1
    if repeated == repeats {
      repeated = 0
      position += 1
    }
    return answer
  }

  /// What the device does by itself when an access is done.
  private func goOn() {
    if divergence != nil || repeated > 0 { return }
    while position < lines.count, case .memory(let iova, let bytes, true) = lines[position].entry {
      place(bytes, at: iova)
      position += 1
    }
    // An interrupt comes after the memory that it is about.
    var next = position
    while next < lines.count, case .memory = lines[next].entry { next += 1 }
    guard next < lines.count,
      case .exchange(.interrupt(let vector), _, _) = lines[next].entry
    else { return }
    for index in position..<next {
      if case .memory(let iova, let bytes, _) = lines[index].entry { place(bytes, at: iova) }
    }
    position = next
    if eventfds.indices.contains(vector), eventfds[vector] >= 0 {
      var one: UInt64 = 1
      _ = Glibc.write(eventfds[vector], &one, 8)
    }
  }

  private func place(_ bytes: [UInt8], at iova: UInt64) {
    guard let range = memory.first(where: { $0.holds(iova, bytes.count) }) else { return }
    (range.address + Int(iova - range.iova)).copyMemory(from: bytes, byteCount: bytes.count)
  }

  private func diverge(got: String?) {
    let line = position < lines.count ? lines[position] : nil
    divergence = Divergence(
      line: line?.number ?? lines.last?.number ?? 1, expected: line.map { "\($0.entry)" }, got: got
    )
  }

  private func call(_ request: TraceRequest) throws(PCIError) -> TraceAnswer {
    guard let answer = take(request) else { throw .gone(name) }
    goOn()
    if case .failure(let error) = answer { throw error }
    return answer
  }

  // MARK: What passes without a call

  public func mark(_ label: String) { _ = try? call(.mark(label)) }

  public func outcome(_ label: String) { mark(label) }

  /// The trace says what changed.
  public func watch(_ part: DMARange) {}

  public func interruptTaken(_ eventfd: Int32) {
    guard let vector = eventfds.firstIndex(of: eventfd) else { return }
    _ = try? call(.interrupt(vector: vector))
  }

  // MARK: The function

  public func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    guard case .value(let value) = try call(.readConfiguration(offset: offset, width)) else {
      return .max
    }
    return UInt32(truncatingIfNeeded: value)
  }

  public func writeConfiguration(
    _ value: UInt32, at offset: Int, width: RegisterWidth
  ) throws(PCIError) {
    _ = try call(.writeConfiguration(offset: offset, width, value))
  }

  public func openRegion(bar: Int) throws(PCIError) -> RegisterRegion {
    guard case .value(let byteCount) = try call(.openRegion(bar: bar)) else {
      throw .noRegion(bar: bar)
    }
    // The function outlives its regions: whoever uses them holds it.
    let calls = RegisterCalls(
      context: Unmanaged.passUnretained(self).toOpaque(),
      load: { context, bar, offset, byteCount in
        Unmanaged<ReplayedFunction>.fromOpaque(context).takeUnretainedValue()
          .load(Int(bar), offset, Int(byteCount))
      },
      store: { context, bar, offset, byteCount, value in
        Unmanaged<ReplayedFunction>.fromOpaque(context).takeUnretainedValue()
          .store(value, Int(bar), offset, Int(byteCount))
      })
    return RegisterRegion(bar: bar, byteCount: byteCount, calls: calls)
  }

  private func load(_ bar: Int, _ offset: UInt64, _ byteCount: Int) -> UInt64 {
    guard let width = RegisterWidth(rawValue: byteCount),
      case .value(let value) = try? call(.read(bar: bar, offset: offset, width))
    else { return .max }
    return value
  }

  private func store(_ value: UInt64, _ bar: Int, _ offset: UInt64, _ byteCount: Int) {
    guard let width = RegisterWidth(rawValue: byteCount) else { return }
    _ = try? call(.write(bar: bar, offset: offset, width, value))
  }

  public var interrupts: InterruptCapability {
    get throws(PCIError) {
      guard case .capability(let offered) = try call(.interruptCapability) else {
        throw .gone(name)
      }
      return offered
    }
  }

  public func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {
    let before = self.eventfds
    self.eventfds = eventfds
    do throws(PCIError) {
      _ = try call(.enable(kind, connected: eventfds.map { $0 >= 0 }))
    } catch {
      self.eventfds = before
      throw error
    }
  }

  public func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {
    _ = try call(.disable(kind))
  }

  public func unmaskINTx() throws(PCIError) { _ = try call(.unmask) }

  public func reset() throws(PCIError) { _ = try call(.reset) }
}

extension DMARange {
  fileprivate func holds(_ iova: UInt64, _ byteCount: Int) -> Bool {
    guard iova >= self.iova, iova - self.iova <= UInt64(self.byteCount) else { return false }
    return part(at: Int(iova - self.iova), byteCount: byteCount) != nil
  }
}
