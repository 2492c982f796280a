import Channel
import Stage
import Steering

/// A stateless firewall: the first rule that matches a packet decides, by priority and then by order.
public struct Firewall: PacketStage, ~Copyable {
  private let receive: FirewallTable
  private let transmit: FirewallTable
  private let passesByDefault: Bool
  private let passesMalformed: Bool
  public let counterNames: [String]

  /// Rules with counters of their own; those behind them have one together.
  private static let countedRules = StageCounters.capacity - 3
  private static let malformed = 0
  private static let byDefault = 1
  private static let otherRules = 2

  public init(_ configuration: String, _ interface: StageInterface) throws(StageError) {
    let rules = try FirewallRules(configuration)
    // A rule for both ways counts in both.
    var names: [String] = []
    var seen: Set<String> = []
    for rule in rules.receive.rules + rules.transmit.rules where seen.insert(rule.name).inserted {
      names.append(rule.name)
    }
    let counted = names.prefix(Self.countedRules)
    let places = Dictionary(uniqueKeysWithValues: counted.enumerated().map { ($1, $0 + 3) })
    let receive = try FirewallTable(rules.receive) { places[$0] ?? Self.otherRules }
    let transmit = try FirewallTable(rules.transmit) { places[$0] ?? Self.otherRules }
    self.receive = receive
    self.transmit = transmit
    passesByDefault = rules.passesByDefault
    passesMalformed = rules.passesMalformed
    counterNames =
      [
        "malformed", rules.passesByDefault ? "passed_by_default" : "dropped_by_default",
        "rules_others",
      ] + counted.map(Self.counterName)
  }

  /// Counters have letters in lower case only.
  private static func counterName(_ rule: String) -> String {
    "rule_"
      + String(decoding: rule.lowercased().utf8.map { $0 == 45 ? 95 : $0 }, as: UTF8.self)
  }

  public mutating func process(
    _ packet: inout StagePacket, _ output: inout StageOutput
  ) -> Verdict {
    let header = packet.header
    if isMalformed(header, packet) {
      output.counters[Self.malformed] += 1
      if !passesMalformed { return .drop }
    }
    let found =
      packet.way == .receive ? receive.find(header, packet) : transmit.find(header, packet)
    guard let found else {
      output.counters[Self.byDefault] += 1
      return passesByDefault ? .pass : .drop
    }
    output.counters[found.counter] += 1
    if let mark = found.mark { packet.mark = mark }
    return found.passes ? .pass : .drop
  }

  /// Also where a later fragment of TCP would be laid over what the first one says (RFC 3128).
  private func isMalformed(_ header: PacketHeader, _ packet: borrowing StagePacket) -> Bool {
    if header.network == .malformed { return true }
    guard header.fragment == .later, header.transport == 6, header.contents.contains(.ipv4) else {
      return false
    }
    return packet.number16(at: Int(header.networkOffset) + 6) & 0x1fff == 1
  }
}

/// The rules of one way, as they are looked up.
struct FirewallTable: ~Copyable {
  private let classifier: Classifier
  private let actions: [Action]

  struct Action {
    var passes: Bool
    var mark: UInt16?
    var counter: Int
  }

  init(_ rules: RuleSet, counter: (String) -> Int) throws(StageError) {
    do throws(RuleError) {
      classifier = try Classifier(rules)
    } catch {
      throw StageError(error)
    }
    actions = rules.rules.map {
      Action(
        passes: $0.actions.verdict != .drop,
        mark: $0.actions.mark.map { UInt16(truncatingIfNeeded: $0) },
        counter: counter($0.name))
    }
  }

  /// What the first rule says that matches; nil where none does.
  func find(_ header: PacketHeader, _ packet: borrowing StagePacket) -> Action? {
    let index = packet.bytes.withUnsafeBytes { bytes in
      guard let start = bytes.baseAddress else { return -1 }
      return classifier.view.match(header, frame: start, byteCount: bytes.count)
    }
    return index < 0 ? nil : actions[index]
  }
}
