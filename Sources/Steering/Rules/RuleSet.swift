/// Rules in the order in which they were written, and the protocols of one's own that they speak of.
///
/// The first rule that matches a packet decides, by ``Rule/priority`` and then by this order; where none does, the packet
/// is delivered by claims. A plain value: change it, and make a new ``Classifier``.
public struct RuleSet: Sendable, Equatable {
  public var protocols: [ProtocolDefinition]
  public var rules: [Rule]

  /// How many rules, definitions of protocols, and fields of them that rules ask for, a set may have.
  public static let maximumRules = 65_536
  public static let maximumProtocols = 32
  public static let maximumFields = 16

  public init(protocols: [ProtocolDefinition] = [], rules: [Rule] = []) {
    self.protocols = protocols
    self.rules = rules
  }
}

/// What is done with packets that look a certain way.
public struct Rule: Sendable, Hashable {
  /// 1 to 32 letters, digits, `-` and `_`; each rule of a set has its own.
  public var name: String
  /// The lowest is looked at first; those of equal priority in the order of the set.
  public var priority: UInt32
  public var match: RuleMatch
  public var actions: RuleActions

  public init(
    name: String, priority: UInt32 = 0, match: RuleMatch = RuleMatch(),
    actions: RuleActions = RuleActions()
  ) {
    self.name = name
    self.priority = priority
    self.match = match
    self.actions = actions
  }
}

/// What cannot stand in a rule set.
public struct RuleError: Error, Hashable, Sendable, CustomStringConvertible {
  /// From 1 on; nil where the rules were not read from a text.
  public var line: Int?
  /// The word, or the name, that is wrong.
  public var word: String
  public var problem: String
  /// What to do.
  public var advice: String

  public init(line: Int? = nil, word: String, problem: String, advice: String) {
    self.line = line
    self.word = word
    self.problem = problem
    self.advice = advice
  }

  public var description: String {
    (line.map { "line \($0): " } ?? "") + "\(word): \(problem); \(advice)"
  }
}
