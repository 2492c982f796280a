import Driver
import Memory

/// A queue pair of a ``TracedDriver``: each verb is marked with its arguments, and with what came out where something did.
public struct TracedQueuePair<Pair: NetworkQueuePair & ~Copyable>: NetworkQueuePair, ~Copyable {
  private var pair: Pair
  private let index: Int
  private let function: any TracedFunction
  private let arena: DMARange

  init(_ pair: consuming Pair, index: Int, _ function: any TracedFunction, arena: DMARange) {
    self.pair = pair
    self.index = index
    self.function = function
    self.arena = arena
  }

  public mutating func postReceive(_ burst: inout Burst) throws(DriverError) {
    let slots = burst.slots(from: 0)
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    watch(slots)
    function.mark(.pair(index, .postReceive(slots)))
    try markingError { pair throws(DriverError) in try pair.postReceive(&burst) }
    if burst.count > 0 { outcome("left \(burst.count)") }
  }

  public mutating func receive(into burst: inout Burst) throws(DriverError) {
    let before = burst.count
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.pair(index, .receive(room: burst.room)))
    try markingError { pair throws(DriverError) in try pair.receive(into: &burst) }
    if burst.count > before { outcome("received" + text(burst.slots(from: before))) }
  }

  public mutating func transmit(_ burst: inout Burst) throws(DriverError) {
    let slots = burst.slots(from: 0)
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    // A driver may look into the headers of what it sends.
    watch(slots)
    function.mark(.pair(index, .transmit(slots)))
    try markingError { pair throws(DriverError) in try pair.transmit(&burst) }
    if burst.count > 0 { outcome("left \(burst.count)") }
  }

  public mutating func completeTransmit(into burst: inout Burst) throws(DriverError) {
    let before = burst.count
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.pair(index, .completeTransmit(room: burst.room)))
    try markingError { pair throws(DriverError) in try pair.completeTransmit(into: &burst) }
    if burst.count > before { outcome("completed" + tags(burst.slots(from: before))) }
  }

  /// Nothing that a replay would have to repeat.
  public mutating func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission {
    pair.admission(of: burst, from: first, through: last, behind: &places)
  }

  public var receiveRoom: Int { pair.receiveRoom }

  public mutating func armInterrupts(transmit: Bool) -> Bool {
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.pair(index, .arm(transmit: transmit)))
    let maySleep = pair.armInterrupts(transmit: transmit)
    outcome(maySleep ? "quiet" : "busy")
    return maySleep
  }

  public mutating func disarmInterrupts() {
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.pair(index, .disarm))
    pair.disarmInterrupts()
  }

  public mutating func takeBack(segments: inout Burst, packets: inout Burst) {
    let before = (segments.count, packets.count)
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.pair(index, .takeBack(segments: segments.room, packets: packets.room)))
    pair.takeBack(segments: &segments, packets: &packets)
    let taken = (segments.slots(from: before.0), packets.slots(from: before.1))
    if !taken.0.isEmpty || !taken.1.isEmpty {
      let names = taken.0.map { " \($0.segment)" }.joined()
      outcome("took back\(names) /\(tags(taken.1))")
    }
  }

  public var statistics: QueueStatistics { pair.statistics }

  private func outcome(_ text: String) { function.outcome("\(index) \(text)") }

  private func watch(_ slots: [Descriptor]) {
    for slot in slots where !slot.flags.contains(.offload) && arena.contains(slot) {
      function.watch(arena.dropFirst(Int(slot.position)).first(Int(slot.length)))
    }
  }

  private mutating func markingError(
    _ call: (inout Pair) throws(DriverError) -> Void
  ) throws(DriverError) {
    do throws(DriverError) {
      try call(&pair)
    } catch {
      outcome("failed: \(error)")
      throw error
    }
  }
}

/// Of the slots of completions only the tag means something.
private func tags(_ slots: [Descriptor]) -> String { slots.map { " \($0.tag)" }.joined() }

extension Burst {
  fileprivate func slots(from start: Int) -> [Descriptor] { (start..<count).map { self[$0] } }
}
