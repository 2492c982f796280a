extension RuleSet: CustomStringConvertible {
  /// Reads one definition or rule from each line. Empty lines, and what follows a `#`, are left out.
  ///
  ///     protocol vxlan above=udp type=4789 header=8 field=vni:4:4:0xffffff00
  ///     rule web priority=10 destination=10.0.0.5 protocol=tcp destination-port=443 to=front-1,front-2
  ///     rule tenant vxlan.vni=42 to=tenant-42 clone=monitor
  ///     rule rest drop
  /// - Throws: the first thing that is wrong, with its line.
  public init(_ text: String) throws(RuleError) {
    self.init()
    var lines: (protocols: [Int], rules: [Int]) = ([], [])
    var number = 0
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      number += 1
      let content = line.prefix { $0 != "#" }
      let words = content.split { $0 == " " || $0 == "\t" || $0 == "\r" }
      switch words.first {
      case nil: continue
      case "rule":
        rules.append(try Rule(words.dropFirst(), line: number))
        lines.rules.append(number)
      case "protocol":
        protocols.append(try ProtocolDefinition(words.dropFirst(), line: number))
        lines.protocols.append(number)
      case .some(let word):
        throw RuleError(
          line: number, word: String(word), problem: "no line begins so",
          advice: "begin it with `rule NAME` or `protocol NAME`")
      }
    }
    try check(lines)
  }

  /// The text from which the set can be read again.
  public var description: String {
    (protocols.map(\.description) + rules.map(\.description)).map { $0 + "\n" }.joined()
  }
}

extension Rule: CustomStringConvertible {
  /// Reads `rule NAME [priority=N] CONDITION... ACTION...`. What it says of protocols of one's own is not looked at
  /// before the rule is in a set.
  public init(_ text: String) throws(RuleError) {
    let words = text.split { $0 == " " || $0 == "\t" }
    guard words.first == "rule" else {
      throw RuleError(word: text, problem: "is no rule", advice: "begin it with `rule NAME`")
    }
    try self.init(words.dropFirst(), line: nil)
  }

  init(_ words: ArraySlice<Substring>, line: Int?) throws(RuleError) {
    guard let first = words.first else {
      throw RuleError(line: line, word: "rule", problem: "has no name", advice: "write `rule NAME`")
    }
    self.init(name: try RuleWord(first, line: line).name(first))
    var seen: Set<String> = []
    // A burst belongs to a limit, wherever it stands.
    let isBurst = { (word: Substring) in word.hasPrefix("burst=") }
    for text in words.dropFirst().filter({ !isBurst($0) }) + words.dropFirst().filter(isBurst) {
      let word = RuleWord(text, line: line)
      guard seen.insert(word.key).inserted else {
        throw word.error("\(word.key) stands there twice", "write it once")
      }
      if RuleActions.verdicts.contains(word.key),
        !seen.isDisjoint(with: RuleActions.verdicts.subtracting([word.key]))
      {
        throw word.error("there is a verdict already", "write one of to=, drop and deliver")
      }
      if word.key == "priority" {
        priority = try word.number(0...UInt64(UInt32.max))
        continue
      }
      if try match.take(word) { continue }
      if try actions.take(word) { continue }
      throw word.error(
        "is no condition and no action",
        "conditions: \(RuleMatch.keys), PROTOCOL.FIELD=; actions: \(RuleActions.keys)")
    }
  }

  public var description: String {
    (["rule \(name)"] + (priority > 0 ? ["priority=\(priority)"] : []) + match.words
      + actions.words).joined(separator: " ")
  }
}
