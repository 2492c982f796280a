/// Something about a rule set that is allowed and may not be meant.
public struct RuleRemark: Sendable, Equatable, CustomStringConvertible {
  public enum Kind: Sendable, Equatable {
    /// All its packets are the other's, which is looked at first: it never decides.
    case shadowed
    /// Both have the same priority and packets in common, and different actions: which one decides is where they stand.
    case conflict
    /// Without it, all its packets would hit the other, which does the same.
    case redundant
  }

  public var kind: Kind
  public var rule: String
  public var other: String

  public var description: String {
    switch kind {
    case .shadowed: "\(rule) never decides: all its packets are \(other)'s"
    case .conflict:
      "\(rule) and \(other) have packets in common, the same priority and different actions: \(other) decides, because it stands first"
    case .redundant:
      "\(rule) changes nothing: without it, its packets would be \(other)'s, which does the same"
    }
  }
}

extension RuleSet {
  /// What may not be meant, in the order in which rules are looked at; of each kind one at most for each rule. Each pair of
  /// rules is compared: some 50 million for 10 000 rules.
  /// - Throws: what cannot stand in the set.
  public func remarks() throws(RuleError) -> [RuleRemark] {
    try check()
    let fields = FieldPlan(self)
    let areas = order.map { index in
      var tests: [WordTest] = []
      rules[index].match.forEachCondition(fields) { $0.forEachTest { tests.append($0) } }
      return RuleArea(rules[index], tests, fields.wordCount)
    }
    var remarks: [RuleRemark] = []
    for rank in areas.indices {
      let area = areas[rank]
      var conflict: Int?
      var shadow: Int?
      for earlier in 0..<rank where area.overlaps(areas[earlier]) {
        if areas[earlier].contains(area) {
          shadow = earlier
          break
        }
        if conflict == nil && areas[earlier].rule.priority == area.rule.priority
          && areas[earlier].rule.actions != area.rule.actions
        {
          conflict = earlier
        }
      }
      if let shadow {
        remarks.append(.init(kind: .shadowed, rule: area.rule.name, other: areas[shadow].rule.name))
        continue
      }
      if let conflict {
        remarks.append(
          .init(kind: .conflict, rule: area.rule.name, other: areas[conflict].rule.name))
      }
      if let other = Self.replacement(of: rank, areas) {
        remarks.append(.init(kind: .redundant, rule: area.rule.name, other: areas[other].rule.name))
      }
    }
    return remarks
  }

  /// A later rule that would do the same with all its packets.
  private static func replacement(of rank: Int, _ areas: [RuleArea]) -> Int? {
    let area = areas[rank]
    for later in (rank + 1)..<max(rank + 1, areas.count) where area.overlaps(areas[later]) {
      if areas[later].rule.actions != area.rule.actions { return nil }
      if areas[later].contains(area) { return later }
    }
    return nil
  }
}

/// The packets of a rule: of each word of a key, a range of some bits, or several.
private struct RuleArea {
  let rule: Rule
  /// By word.
  private let tests: [WordTest]
  /// Bits that are the same in all packets, and their values: one comparison tells most rules apart.
  private let masks: [UInt64]
  private let lows: [UInt64]

  init(_ rule: Rule, _ tests: [WordTest], _ wordCount: Int) {
    self.rule = rule
    self.tests = tests
    var masks = [UInt64](repeating: 0, count: wordCount)
    var lows = masks
    for test in tests where test.span == 0 {
      masks[Int(test.word)] |= test.mask
      lows[Int(test.word)] |= test.low
    }
    self.masks = masks
    self.lows = lows
  }

  /// Whether there can be a packet of both.
  func overlaps(_ other: RuleArea) -> Bool {
    for word in masks.indices
    where (lows[word] ^ other.lows[word]) & masks[word] & other.masks[word] != 0 {
      return false
    }
    return tests.allSatisfy { test in
      other.tests.allSatisfy { otherTest in
        guard test.word == otherTest.word, test.mask == otherTest.mask else { return true }
        return test.low <= otherTest.low + otherTest.span && otherTest.low <= test.low + test.span
      }
    }
  }

  /// Whether all packets of the other are its own.
  func contains(_ other: RuleArea) -> Bool {
    tests.allSatisfy { test in
      let word = Int(test.word)
      if test.span == 0 {
        return other.masks[word] & test.mask == test.mask
          && other.lows[word] & test.mask == test.low
      }
      let isExact = other.masks[word] & test.mask == test.mask
      if isExact { return (other.lows[word] & test.mask) &- test.low <= test.span }
      return other.tests.contains {
        $0.word == test.word && $0.mask == test.mask && $0.low >= test.low
          && $0.low + $0.span <= test.low + test.span
      }
    }
  }
}
