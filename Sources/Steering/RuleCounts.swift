import CLinux

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

  public static func += (sum: inout RuleCounts, other: RuleCounts) {
    sum.packets &+= other.packets
    sum.bytes &+= other.bytes
    sum.limited &+= other.limited
    sum.absent &+= other.absent
  }

  /// What a rule has counted on all queues.
  /// - Parameters:
  ///   - page: of as many rules and queues (``RuleCounterLayout``).
  ///   - rule: its place in the set.
  public init(reading page: UnsafeRawPointer, rule: Int, rules: Int, queues: Int) {
    self.init()
    for queue in 0..<queues {
      func value(_ counter: RuleCounterLayout.Counter) -> UInt64 {
        relaxed_load64(
          page + RuleCounterLayout.offset(of: counter, rule: rule, queue: queue, rules: rules))
      }
      self += RuleCounts(
        packets: value(.packets), bytes: value(.bytes), limited: value(.limited),
        absent: value(.absent))
    }
  }

  /// Each with its name.
  public var named: [(name: String, value: UInt64)] {
    [("packets", packets), ("bytes", bytes), ("limited", limited), ("absent", absent)]
  }
}
