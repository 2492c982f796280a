/// What a rule set makes of one frame, and why.
public struct RuleExplanation: Sendable, Equatable, CustomStringConvertible {
  /// The rule that decides; nil where none does, and claims decide.
  public var rule: String?
  /// The rules that are looked at before it, in that order, with the first condition of each that does not hold.
  public var misses: [Miss]

  public struct Miss: Sendable, Equatable {
    public var rule: String
    /// As in the rule's text.
    public var condition: String
    /// What the packet has there.
    public var packet: String
  }

  public var description: String {
    misses.map { "\($0.rule): not \($0.condition): the packet has \($0.packet)\n" }.joined()
      + (rule.map { "\($0): all of it holds" } ?? "no rule matches: claims decide")
  }
}

extension RuleSet {
  /// Which rule a frame would hit, and why not those before it. Rules are looked at one after the other, in the order of
  /// their priorities.
  /// - Throws: what a ``Classifier`` would not take.
  public func explain(_ frame: [UInt8]) throws(RuleError) -> RuleExplanation {
    let key = try Classifier(self).key(frame)
    let plan = FieldPlan(self)
    var explanation = RuleExplanation(rule: nil, misses: [])
    for index in order {
      let match = rules[index].match
      var packets: [String?] = []
      match.forEachCondition(plan) { packets.append($0.miss(key)) }
      guard let place = packets.firstIndex(where: { $0 != nil }), let packet = packets[place] else {
        explanation.rule = rules[index].name
        return explanation
      }
      explanation.misses.append(
        .init(rule: rules[index].name, condition: match.words[place], packet: packet))
    }
    return explanation
  }

  /// Places of rules in the order in which they are looked at.
  var order: [Int] {
    rules.indices.sorted { (rules[$0].priority, $0) < (rules[$1].priority, $1) }
  }
}

extension Classifier {
  fileprivate func key(_ frame: [UInt8]) -> [UInt64] {
    // One byte more, so that there is an address also of an empty frame.
    (frame + [0]).withUnsafeBytes { bytes in
      guard let start = bytes.baseAddress else { return [] }
      let packet = PacketHeader(frame: start, byteCount: frame.count)
      return [UInt64](unsafeUninitializedCapacity: PacketKey.maximumWords) { key, count in
        key.initialize(repeating: 0)
        count = PacketKey.maximumWords
        if let words = key.baseAddress { view.write(packet, start, frame.count, to: words) }
      }
    }
  }
}
