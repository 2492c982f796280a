import Capture
import Channel
import Glibc
import Memory

/// Who captures the packets of a run, and what the driver host is told of it. A capture is its connection's: it ends with it,
/// however that ends. Driver hosts come and go meanwhile. One thread.
final class CaptureService {
  private let area: CaptureArea
  private let readers: CaptureReaders
  private var captures: [Int: Running] = [:]
  private var sessions: UInt64 = 0
  /// Instances that there are, by slot.
  private var instances: [Int: (id: UInt32, name: String)] = [:]
  /// The rules that the driver host has been told of last, and those before: until it has taken them it goes by those.
  private var rules: [RuleNames] = []
  /// Slots whose memory is looked at once more: a queue thread may have been writing when its capture ended.
  private var ended: [Int: UInt64] = [:]

  private struct Running {
    let connection: PeerConnection
    var order: CaptureOrder
    let wanted: [WantedPoint]
  }

  /// - Parameter queues: of the driver host.
  init(queues: Int) throws(MemoryError) {
    area = try CaptureArea(queues: queues)
    readers = try CaptureReaders(queues: queues)
  }

  /// What every host of the run inherits.
  var descriptors: (area: Int32, readers: Int32) { (area.descriptor, readers.descriptor) }

  // MARK: Captures

  /// Does what a connection asks for by `filter` or `capture`.
  /// - Returns: nil, or why nothing comes of it.
  func obey(_ message: ControlMessage, from connection: PeerConnection) -> String? {
    do throws(CaptureRefusal) {
      if message.word == "filter" {
        try addFilter(message, of: connection)
      } else {
        try begin(message, for: connection)
        connection.stage = .capturing
        connection.deadline = nil
      }
      return nil
    } catch {
      return error.reason
    }
  }

  /// More of a filter: what is to be captured is said by ``begin(_:for:)``.
  func addFilter(_ message: ControlMessage, of connection: PeerConnection) throws(CaptureRefusal) {
    guard let text = message["code"], let more = FilterText.instructions(text) else {
      throw CaptureRefusal("the filter is none")
    }
    guard connection.filter.count + more.count <= FilterProgram.maximumInstructions else {
      throw CaptureRefusal("\(FilterError.length(connection.filter.count + more.count))")
    }
    connection.filter += more
  }

  /// Begins a capture, and tells who has asked for it.
  func begin(_ message: ControlMessage, for connection: PeerConnection) throws(CaptureRefusal) {
    let program = connection.filter.isEmpty ? [.accept(262_144)] : connection.filter
    connection.filter = []
    do throws(FilterError) {
      try FilterProgram.check(program)
    } catch {
      throw CaptureRefusal("\(error)")
    }
    var order = try CaptureOrder(message)
    let wanted = try WantedPoint.list(message["points"] ?? "")
    guard let slot = (0..<CaptureArea.slots).first(where: { captures[$0] == nil }) else {
      throw CaptureRefusal("\(CaptureArea.slots) captures run already: end one of them")
    }
    for (index, instance) in instances { order.aim(at: index, named: instance.name, wanted) }
    for point in wanted { order.want(point.point) }
    sessions += 1
    order.session = sessions
    var readOnly: Int32 = -1
    do throws(MemoryError) {
      readOnly = try area.readOnlyDescriptor()
      defer { close(readOnly) }
      ended[slot] = nil
      readers.reset(slot: slot)
      guard
        connection.say(
          "capturing slot=\(slot) session=\(order.session) queues=\(area.queues) ring=\(order.ringSize)",
          [readOnly, readers.descriptor])
      else { return }
      for instance in instances.values { connection.say(Self.text(instance)) }
      for (place, name) in stages.enumerated() { connection.say(Self.text((UInt32(place), name))) }
      for names in rules { names.say(to: connection) }
      try area.begin(&order, program: program, slot: slot)
    } catch {
      throw CaptureRefusal("\(error)")
    }
    captures[slot] = Running(connection: connection, order: order, wanted: wanted)
  }

  private static func text(_ instance: (id: UInt32, name: String)) -> String {
    "instance id=\(instance.id) name=\(instance.name)"
  }

  /// Names of stages, by place: no instance has such small identifiers.
  var stages: [String] = []

  /// A connection has ended: so has its capture, if it had one.
  func end(_ connection: PeerConnection) {
    for (slot, capture) in captures where capture.connection === connection {
      captures[slot] = nil
      area.end(slot: slot)
      area.empty(slot)
      ended[slot] = RunSession.now() + 200
    }
  }

  /// Gives back what was written while captures ended.
  func tidy(at now: UInt64) {
    for (slot, due) in ended where now >= due {
      area.empty(slot)
      ended[slot] = nil
    }
  }

  // MARK: Names

  /// The driver host is about to be told of these rules.
  func note(_ names: RuleNames) {
    rules = rules.suffix(1) + [names]
    for capture in captures.values { names.say(to: capture.connection) }
  }

  /// There is an instance more; before the driver host hears of it.
  func note(instance id: UInt32, name: String) {
    let slot = Int(id & 63)
    instances[slot] = (id, name)
    for (index, var capture) in captures {
      capture.connection.say(Self.text((id, name)))
      let before = capture.order
      capture.order.aim(at: slot, named: name, capture.wanted)
      if capture.order != before { area.change(capture.order, slot: index) }
      captures[index] = capture
    }
  }
}

extension CaptureService {
  /// What captures have counted, on all queues and at all points, by slot: `written` is what is in the rings for whoever
  /// captures, `lost` what found no room there.
  var counters: [(name: String, value: UInt64)] {
    var counters: [(name: String, value: UInt64)] = [("captures", UInt64(captures.count))]
    for (slot, capture) in captures.sorted(by: { $0.key < $1.key }) {
      let counts = area.counts(slot: slot, session: capture.order.session)
      counters += [
        ("capture_\(slot)_seen", counts.seen), ("capture_\(slot)_matched", counts.matched),
        ("capture_\(slot)_written", counts.matched &- counts.dropped),
        ("capture_\(slot)_lost", counts.dropped),
      ]
    }
    return counters
  }
}

/// Why nothing is captured.
struct CaptureRefusal: Error {
  let reason: String
  init(_ reason: String) { self.reason = reason }
}

/// A point, and whose: nil for every instance's.
struct WantedPoint {
  let point: CapturePoint
  let instance: String?

  /// Points by name, parted by commas, those of one instance as `channel-rx:NAME`.
  static func list(_ text: String) throws(CaptureRefusal) -> [WantedPoint] {
    var points: [WantedPoint] = []
    for word in text.split(separator: ",") {
      let parts = word.split(separator: ":", maxSplits: 1)
      guard let point = parts.first.flatMap({ CapturePoint(name: $0) }),
        parts.count == 1 || point.isOfInstances
      else {
        let names = CapturePoint.allCases.map(\.name).joined(separator: ", ")
        throw CaptureRefusal("there is no point \(word): there are \(names)")
      }
      points.append(WantedPoint(point: point, instance: parts.count == 2 ? String(parts[1]) : nil))
    }
    guard !points.isEmpty, points.count <= 64 else {
      throw CaptureRefusal("where to capture is not said")
    }
    return points
  }
}

extension CaptureOrder {
  fileprivate init(_ message: ControlMessage) throws(CaptureRefusal) {
    self.init()
    guard let snap: UInt32 = message.number("snap"), snap > 0, snap <= 262_144 else {
      throw CaptureRefusal("a packet's length is 1 to 262144 bytes")
    }
    guard let ring: UInt32 = message.number("ring"), ring.nonzeroBitCount == 1,
      ring >= 1 << 19, ring <= CaptureArea.maximumRingBytes
    else {
      throw CaptureRefusal(
        "the buffer is a power of two of 512 KiB to \(CaptureArea.maximumRingBytes >> 20) MiB")
    }
    snapLength = snap
    ringSize = ring
    isPrecise = message["precise"] == "yes" ? 1 : 0
  }

  /// Says whether the instance in a slot is meant.
  fileprivate mutating func aim(at slot: Int, named name: String, _ wanted: [WantedPoint]) {
    let bit = UInt64(1) << UInt64(slot & 63)
    func isWanted(_ point: CapturePoint) -> Bool {
      wanted.contains { $0.point == point && ($0.instance == nil || $0.instance == name) }
    }
    receivers = isWanted(.channelReceive) ? receivers | bit : receivers & ~bit
    senders = isWanted(.channelTransmit) ? senders | bit : senders & ~bit
  }
}

/// A filter as text: 16 hexadecimal digits an instruction.
enum FilterText {
  static func text(_ program: some Sequence<FilterInstruction>) -> String {
    program.map { instruction in
      let value =
        UInt64(instruction.code) << 48 | UInt64(instruction.jumpTrue) << 40
        | UInt64(instruction.jumpFalse) << 32 | UInt64(instruction.operand)
      let digits = String(value, radix: 16)
      return String(repeating: "0", count: 16 - digits.count) + digits
    }.joined()
  }

  /// - Returns: nil where it is none.
  static func instructions(_ text: String) -> [FilterInstruction]? {
    let digits = Array(text.utf8)
    guard !digits.isEmpty, digits.count % 16 == 0 else { return nil }
    var program: [FilterInstruction] = []
    for start in stride(from: 0, to: digits.count, by: 16) {
      let word = String(decoding: digits[start..<start + 16], as: UTF8.self)
      guard word.first != "+", word.first != "-", let value = UInt64(word, radix: 16) else {
        return nil
      }
      program.append(
        FilterInstruction(
          code: UInt16(value >> 48), jumpTrue: UInt8(truncatingIfNeeded: value >> 40),
          jumpFalse: UInt8(truncatingIfNeeded: value >> 32),
          operand: UInt32(truncatingIfNeeded: value)))
    }
    return program
  }
}
