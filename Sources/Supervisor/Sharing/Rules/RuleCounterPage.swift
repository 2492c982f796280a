import CLinux
import Memory
import Steering

/// What a rule has counted.
public struct RuleCounts: Sendable, Equatable {
  public var packets: UInt64 = 0
  public var bytes: UInt64 = 0
  /// Packets that did not pass its limit.
  public var limited: UInt64 = 0
  /// Packets for instances that are not there.
  public var absent: UInt64 = 0

  public init(packets: UInt64 = 0, bytes: UInt64 = 0, limited: UInt64 = 0, absent: UInt64 = 0) {
    self.packets = packets
    self.bytes = bytes
    self.limited = limited
    self.absent = absent
  }

  static func += (sum: inout RuleCounts, other: RuleCounts) {
    sum.packets &+= other.packets
    sum.bytes &+= other.bytes
    sum.limited &+= other.limited
    sum.absent &+= other.absent
  }
}

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
      var sum = RuleCounts()
      for queue in 0..<queues {
        func value(_ counter: RuleCounterLayout.Counter) -> UInt64 {
          relaxed_load64(
            arena.address
              + RuleCounterLayout.offset(
                of: counter, rule: index, queue: queue, rules: names.count))
        }
        sum += RuleCounts(
          packets: value(.packets), bytes: value(.bytes), limited: value(.limited),
          absent: value(.absent))
      }
      return (name, sum)
    }
  }
}
