import Channel
import Stage
import Steering

/// A firewall's configuration: a rule set for each way, and what becomes of packets that no rule has.
struct FirewallRules {
  var receive = RuleSet()
  var transmit = RuleSet()
  /// Whether packets pass that no rule has.
  var passesByDefault = true
  /// Whether packets pass whose headers are cut off or contradict themselves.
  var passesMalformed = false

  /// Reads the rules' grammar, with three words more: `way=receive` or `way=transmit` in a rule, `accept` for `deliver`;
  /// and the lines `default accept`, `default drop`, `malformed accept`, `malformed drop`.
  init(_ text: String) throws(StageError) {
    var lines: (receive: [String], transmit: [String]) = ([], [])
    var number = 0
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      number += 1
      var words = line.prefix { $0 != "#" }
        .split { $0 == " " || $0 == "\t" || $0 == "\r" }.map(String.init)
      var ways: Set<StagedPacket.Way> = [.receive, .transmit]
      if words.first == "default" || words.first == "malformed" {
        try set(words, line: number)
        words = []
      }
      if words.first == "rule" { ways = try Self.takeWays(&words, line: number) }
      // A line that is not for a way stays empty there: others keep their numbers.
      lines.receive.append(ways.contains(.receive) ? words.joined(separator: " ") : "")
      lines.transmit.append(ways.contains(.transmit) ? words.joined(separator: " ") : "")
    }
    receive = try Self.rules(lines.receive)
    transmit = try Self.rules(lines.transmit)
  }

  private mutating func set(_ words: [String], line: Int) throws(StageError) {
    guard words.count == 2, words[1] == "accept" || words[1] == "drop" else {
      throw StageError(
        line: line, word: words.joined(separator: " "), problem: "says nothing",
        advice: "write \(words[0]) and accept or drop")
    }
    if words[0] == "default" {
      passesByDefault = words[1] == "accept"
    } else {
      passesMalformed = words[1] == "accept"
    }
  }

  private static func takeWays(
    _ words: inout [String], line: Int
  ) throws(StageError) -> Set<StagedPacket.Way> {
    var ways: Set<StagedPacket.Way> = [.receive, .transmit]
    for word in words where word.hasPrefix("way=") {
      ways = try StageSetting(line: line, key: "way", value: String(word.dropFirst(4))).ways()
    }
    words.removeAll { $0.hasPrefix("way=") }
    // Not the rule's name.
    for index in words.indices.dropFirst(2) where words[index] == "accept" {
      words[index] = "deliver"
    }
    return ways
  }

  private static func rules(_ lines: [String]) throws(StageError) -> RuleSet {
    do throws(RuleError) {
      let set = try RuleSet(lines.joined(separator: "\n"))
      for rule in set.rules {
        if let problem = problem(rule.actions) {
          throw RuleError(
            word: rule.name, problem: problem, advice: "write accept, drop or mark=N")
        }
      }
      return set
    } catch {
      throw StageError(error)
    }
  }

  /// A firewall sends nothing elsewhere, and knows nothing of time.
  private static func problem(_ actions: RuleActions) -> String? {
    if case .to = actions.verdict { return "a firewall sends packets to nobody" }
    if !actions.clones.isEmpty { return "a firewall copies no packets" }
    if !actions.stages.isEmpty { return "a firewall sends packets to no other stage" }
    if actions.limit != nil { return "a firewall limits no rates" }
    if let mark = actions.mark, mark > UInt32(UInt16.max) { return "its mark is above 65535" }
    return nil
  }
}
