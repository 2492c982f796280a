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
  /// rules is compared, most of them in a few instructions: 50 million pairs of 10 000 rules in less than a second.
  /// - Throws: what cannot stand in the set.
  public func remarks() throws(RuleError) -> [RuleRemark] {
    try check()
    let order = order
    let areas = RuleAreas(self)
    var remarks: [RuleRemark] = []
    for rank in order.indices {
      func remark(_ kind: RuleRemark.Kind, _ other: Int) {
        remarks.append(
          .init(kind: kind, rule: rules[order[rank]].name, other: rules[order[other]].name))
      }
      if let other = areas.shadow(of: rank) {
        remark(.shadowed, other)
        continue
      }
      if let other = areas.conflict(of: rank) { remark(.conflict, other) }
      if let other = areas.replacement(of: rank) { remark(.redundant, other) }
    }
    return remarks
  }
}
