import CLinux
import Driver
import Glibc
import Memory
import PCI

/// Turns the trace of a run into a test of a driver: the calls that the host made are made again, with the same
/// arguments, on a function that answers as the recorded one did.
///
///     try DriverReplay<VirtioNet>.run(Trace(text: text))
///
/// What the driver does to registers, and what it hands out, has to be what it was. It gets memory at the recorded IOVAs.
public enum DriverReplay<D: NetworkDriver & ~Copyable> {
  /// - Parameter trace: of a ``TracedDriver``, as `martlet run --record` writes it; of one queue pair.
  /// - Returns: how many calls were made.
  /// - Throws: the first divergence, or that the trace is none of a driver's run.
  @discardableResult
  public static func run(_ trace: Trace) throws(ReplayError) -> Int {
    let memory = try ReplayMemory(trace)
    let function: ReplayedFunction
    do throws(TraceError) {
      function = try ReplayedFunction(trace, memory: memory.ranges.map(\.range))
    } catch {
      throw .trace(error)
    }
    var host = ReplayHost<D>(
      function, rings: try memory["rings"], arena: try memory["arena"])
    var calls = 0
    for line in trace.lines {
      switch line.entry {
      case .exchange(.mark(let label), _, _):
        guard let call = TracedCall(label) else { continue }
        try host.make(call, line: line.number, label)
        calls += 1
      case .exchange(.interrupt, _, _): host.takeInterrupts()
      default: continue
      }
      if let divergence = function.divergence { throw .divergence(divergence) }
    }
    if calls == 0 { throw .trace(.noDriver) }
    do throws(ReplayedFunction.Divergence) {
      try function.finish()
    } catch {
      throw .divergence(error)
    }
    return calls
  }
}

/// Why a replay ended before the trace did.
public enum ReplayError: Error, Equatable, Sendable {
  /// The trace is of no use.
  case trace(TraceError)
  /// The driver did something else than the recorded one.
  case divergence(ReplayedFunction.Divergence)
  /// There is no memory for the trace's mappings.
  case memory(byteCount: Int)
}

extension ReplayError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .trace(let error): error.description
    case .divergence(let divergence): divergence.description
    case .memory(let byteCount): "no memory for \(byteCount) bytes that the trace names"
    }
  }
}

extension Trace {
  /// The name of the driver whose run it is; nil where it is not one of a ``TracedDriver``.
  public var driver: String? {
    for label in labels {
      if case .initialize(let setup) = TracedCall(label) { return setup.driver }
    }
    return nil
  }
}

/// The memory that a trace names, zeroed.
private final class ReplayMemory {
  private(set) var ranges: [(name: String, range: DMARange)] = []

  init(_ trace: Trace) throws(ReplayError) {
    for mapping in trace.mappings where mapping.byteCount > 0 {
      let memory = mmap(
        nil, mapping.byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
      guard let memory, memory != MAP_FAILED else { throw .memory(byteCount: mapping.byteCount) }
      ranges.append(
        (
          mapping.name,
          DMARange(address: memory, iova: mapping.iova, byteCount: mapping.byteCount)
        ))
    }
  }

  deinit { for (_, range) in ranges { munmap(range.address, range.byteCount) } }

  subscript(name: String) -> DMARange {
    get throws(ReplayError) {
      guard let range = ranges.first(where: { $0.name == name })?.range else {
        throw .trace(.noDriver)
      }
      return range
    }
  }
}

/// Does what the recorded host did.
private struct ReplayHost<D: NetworkDriver & ~Copyable>: ~Copyable {
  private let function: ReplayedFunction
  private let rings: DMARange
  private let arena: DMARange
  private var driver: TracedDriver<D>?
  private var pair: TracedQueuePair<D.QueuePair>?
  private var eventfds: [Int32] = []
  /// More than any burst of a host has.
  private static var largestBurst: Int { 1 << 16 }

  init(_ function: ReplayedFunction, rings: DMARange, arena: DMARange) {
    self.function = function
    self.rings = rings
    self.arena = arena
  }

  deinit { for eventfd in eventfds where eventfd >= 0 { close(eventfd) } }

  /// Reads what has fired, as a host does after it has slept.
  func takeInterrupts() {
    for eventfd in eventfds where eventfd >= 0 {
      var count: UInt64 = 0
      if read(eventfd, &count, 8) == 8 { function.interruptTaken(eventfd) }
    }
  }

  mutating func make(_ call: TracedCall, line: Int, _ label: String) throws(ReplayError) {
    var isPossible = true
    // An error of the driver is in the trace, or it is a divergence: either way it is not this host's.
    do throws(DriverError) {
      if case .initialize(let setup) = call {
        isPossible = try initialize(setup)
      } else if case .pair(let index, let verb) = call, verb != .take {
        isPossible = pair != nil && index == 0
        if isPossible { isPossible = try make(verb) }
      } else if driver == nil {
        // The driver could not be made.
        isPossible = false
      } else {
        isPossible = try control(call)
      }
    } catch {}
    if !isPossible && function.divergence == nil {
      throw .trace(.malformed(line: line, text: label))
    }
  }

  private mutating func initialize(_ setup: TracedCall.Setup) throws(DriverError) -> Bool {
    guard driver == nil, setup.queuePairs == 1, let configuration = setup.interrupts.first,
      (1...32768).contains(setup.ringSize), setup.ringSize & (setup.ringSize - 1) == 0
    else { return false }
    eventfds = setup.interrupts.map { $0 ? eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)) : -1 }
    driver = try TracedDriver<D>(
      DriverResources(
        function: function, rings: DMAZone(rings), arena: arena, queuePairs: setup.queuePairs,
        ringSize: setup.ringSize, mtu: setup.mtu, without: setup.without,
        interrupts: InterruptPlan(
          configuration: configuration ? eventfds[0] : -1, queues: Array(eventfds.dropFirst())),
        requiresPlatformAccess: setup.requiresPlatformAccess))
    return true
  }

  /// - Returns: false where the call cannot be made.
  private mutating func control(_ call: TracedCall) throws(DriverError) -> Bool {
    switch call {
    case .start: try driver?.start()
    case .stop: driver?.stop()
    case .handleConfigurationChange: _ = try driver?.handleConfigurationChange()
    case .readDeviceStatistics: _ = driver?.readDeviceStatistics()
    case .setPromiscuous(let on): try driver?.setPromiscuous(on)
    case .setFilter(let unicast, let multicast):
      try driver?.setFilter(unicast: unicast, multicast: multicast)
    case .setReceiveCoalescing(let packets, let microseconds):
      try driver?.setReceiveCoalescing(packets: packets, microseconds: microseconds)
    case .pair(0, .take):
      if pair != nil { return false }
      pair = driver?.takeQueuePair(0)
    case .initialize, .pair: return false
    }
    return true
  }

  /// - Returns: false where the call cannot be made.
  private mutating func make(_ verb: TracedCall.Verb) throws(DriverError) -> Bool {
    switch verb {
    case .postReceive(let slots):
      guard var burst = burst(of: slots) else { return false }
      try pair?.postReceive(&burst)
    case .transmit(let slots):
      guard var burst = burst(of: slots) else { return false }
      try pair?.transmit(&burst)
    case .receive(let room):
      guard var burst = burst(room: room) else { return false }
      try pair?.receive(into: &burst)
    case .completeTransmit(let room):
      guard var burst = burst(room: room) else { return false }
      try pair?.completeTransmit(into: &burst)
    case .arm(let transmit): _ = pair?.armInterrupts(transmit: transmit)
    case .disarm: pair?.disarmInterrupts()
    case .takeBack(let segments, let packets):
      guard var segments = burst(room: segments), var packets = burst(room: packets) else {
        return false
      }
      pair?.takeBack(segments: &segments, packets: &packets)
    case .take: return false
    }
    return true
  }

  /// A burst without slots and so much room.
  private func burst(room: Int) -> Burst? {
    guard (0...Self.largestBurst).contains(room) else { return nil }
    if room > 0 { return Burst(capacity: room) }
    var full = Burst(capacity: 1)
    full.append(Descriptor(segment: 0))
    return full
  }

  /// Slots that lie in the arena, as a host has checked before it passes them on.
  private func burst(of slots: [Descriptor]) -> Burst? {
    var burst = Burst(capacity: slots.count + 1)
    for slot in slots {
      let isGood =
        slot.flags.contains(.offload)
        ? Offload(slot) != nil : slot.length > 0 && arena.contains(slot)
      if !isGood { return nil }
      burst.append(slot)
    }
    return burst
  }
}
