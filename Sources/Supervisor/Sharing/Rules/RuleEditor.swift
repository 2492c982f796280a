import Steering

/// What a set of rules becomes by one change. Nothing is changed where something is wrong.
struct RuleEditor {
  private let rules: RuleSet

  init(_ rules: RuleSet) { self.rules = rules }

  /// - Parameter text: rules that go behind those that there are, and protocols that they need.
  func adding(_ text: String) throws(RuleError) -> RuleSet {
    try RuleSet("\(rules)\n\(text)")
  }

  /// - Parameter text: rules that take the places of those with the same names.
  func modifying(_ text: String) throws(RuleError) -> RuleSet {
    var rest = rules
    var places: [String: Int] = [:]
    for (place, rule) in rules.rules.enumerated() { places[rule.name] = place }
    let names = Self.names(in: text)
    rest.rules.removeAll { names.contains($0.name) }
    let all = try RuleEditor(rest).adding(text)
    var result = rules
    result.protocols = all.protocols
    for rule in all.rules[rest.rules.count...] {
      guard let place = places[rule.name] else {
        throw RuleError(word: rule.name, problem: "there is no such rule", advice: "add it")
      }
      result.rules[place] = rule
    }
    return result
  }

  func removing(_ names: [String]) throws(RuleError) -> RuleSet {
    var result = rules
    for name in names {
      guard let place = result.rules.firstIndex(where: { $0.name == name }) else {
        throw RuleError(
          word: name, problem: "there is no such rule", advice: "`martlet rules list` has them all")
      }
      result.rules.remove(at: place)
    }
    return result
  }

  /// - Parameter other: the rule before which it goes; nil for the end.
  func moving(_ name: String, before other: String?) throws(RuleError) -> RuleSet {
    var result = try removing([name])
    var place = result.rules.count
    if let other {
      guard let found = result.rules.firstIndex(where: { $0.name == other }) else {
        throw RuleError(
          word: other, problem: "there is no other rule of that name",
          advice: "`martlet rules list` has them all")
      }
      place = found
    }
    result.rules.insert(contentsOf: rules.rules.filter { $0.name == name }, at: place)
    return result
  }

  /// Of all rules in a text.
  private static func names(in text: String) -> Set<String> {
    Set(
      text.split(whereSeparator: \.isNewline).compactMap { line in
        let words = line.split(separator: " ", maxSplits: 2)
        return words.count > 1 && words[0] == "rule" ? String(words[1]) : nil
      })
  }
}
