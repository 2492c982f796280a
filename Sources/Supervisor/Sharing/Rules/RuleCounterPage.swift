import Channel
import Glibc
import Memory
import Steering

/// The counters of a set of rules: written by the driver host's queue threads, read here. A row for each queue, of a block
/// for each rule.
final class RuleCounterPage {
  private let arena: Arena
  private let names: [String]
  private let queues: Int

  var descriptor: Int32 { arena.descriptor }
  var byteCount: Int { arena.byteCount }

  init(_ set: RuleSet, queues: Int) throws(MemoryError) {
    names = set.rules.map(\.name)
    self.queues = queues
    let bytes = RuleCounterLayout.byteCount(rules: names.count, queues: queues)
    arena = try Arena(
      byteCount: (max(1, bytes) + 4095) / 4096 * 4096, pageSize: .ordinary,
      name: "martlet-rule-counters")
  }

  /// The sums over the queues, by rule's name.
  var counts: [(name: String, counts: RuleCounts)] {
    names.enumerated().map { index, name in
      (
        name,
        RuleCounts(reading: arena.address, rule: index, rules: names.count, queues: queues)
      )
    }
  }

  /// For processes that read what is counted, without a word to anybody: a message and two descriptors, the caller's to
  /// close.
  /// - Parameter before: what these rules had counted before there was this page.
  func handout(
    before: [String: RuleCounts]
  ) throws(MemoryError) -> (text: String, descriptors: [Int32]) {
    let lines = names.map { name in
      let counts = before[name] ?? RuleCounts()
      return "\(name) \(counts.packets) \(counts.bytes) \(counts.limited) \(counts.absent)\n"
    }
    let list = try SharedText(lines.joined(), name: "martlet-rule-names")
    let page = try arena.makeReadOnlyDescriptor()
    return (
      "rules queues=\(queues) bytes=\(list.byteCount) counters=\(byteCount)",
      [dup(list.descriptor), page]
    )
  }
}
