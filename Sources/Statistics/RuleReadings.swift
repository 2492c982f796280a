import Channel
import Glibc
import Memory
import Steering

/// What the rules of a run count, read where the driver host counts it: a page of a set of rules, and what they had counted
/// before there was that page. While one set takes the place of another, there are two. One thread.
final class RuleReadings {
  private let page: Arena
  private let queues: Int
  /// By place in the set.
  private let rules: [(name: String, before: RuleCounts)]

  /// - Parameter descriptors: a list of the rules, and the page; the caller's.
  /// - Returns: nil where the message, `rules queues= bytes= counters=`, makes no sense.
  init?(_ message: ControlMessage, _ descriptors: [Int32]) {
    guard descriptors.count == 2, let queues: Int = message.number("queues"),
      (1...64).contains(queues), let byteCount: Int = message.number("bytes"),
      let counterBytes: Int = message.number("counters"), (1...(1 << 28)).contains(counterBytes),
      let text = SharedText.read(descriptors[0], byteCount: byteCount)
    else { return nil }
    var rules: [(name: String, before: RuleCounts)] = []
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ")
      let numbers = words.dropFirst().compactMap { UInt64($0) }
      guard numbers.count == 4, words.count == 5, words[0].utf8.allSatisfy(Self.isNameByte) else {
        return nil
      }
      rules.append(
        (
          String(words[0]),
          RuleCounts(
            packets: numbers[0], bytes: numbers[1], limited: numbers[2], absent: numbers[3])
        ))
    }
    guard RuleCounterLayout.byteCount(rules: rules.count, queues: queues) <= counterBytes,
      let page = try? Arena(
        adopting: dup(descriptors[1]), byteCount: counterBytes, writable: false)
    else { return nil }
    self.page = page
    self.queues = queues
    self.rules = rules
  }

  private static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
      true
    default: false
    }
  }

  private var counts: [(name: String, counts: RuleCounts)] {
    rules.enumerated().map { place, rule in
      var counts = RuleCounts(
        reading: page.address, rule: place, rules: rules.count, queues: queues)
      counts += rule.before
      return (rule.name, counts)
    }
  }

  /// The counters of the last set's rules, in their order: `rule_web_packets`, and so on.
  /// - Parameter pages: in the order of their sets.
  static func counters(_ pages: [RuleReadings]) -> [(name: String, value: UInt64)] {
    guard let last = pages.last else { return [] }
    var former: [String: RuleCounts] = [:]
    for page in pages.dropLast() {
      for (name, counts) in page.counts { former[name, default: RuleCounts()] += counts }
    }
    return last.counts.flatMap { name, counts in
      var counts = counts
      if let more = former[name] { counts += more }
      return counts.named.map { ("rule_\(name)_\($0.name)", $0.value) }
    }
  }
}
