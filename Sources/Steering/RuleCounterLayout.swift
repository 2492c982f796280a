/// Where the counters of rules lie in the memory that the driver host writes and others read: a row for each queue, of a
/// block of words for each rule.
public enum RuleCounterLayout {
  /// What is counted of each rule on each queue.
  public enum Counter: Int, CaseIterable, Sendable {
    /// Packets that it matched, and their bytes.
    case packets
    case bytes
    /// Packets that did not pass its limit.
    case limited
    /// Packets for instances that are not there.
    case absent
  }

  /// Of a rule on a queue, in bytes.
  @inlinable public static var blockBytes: Int { 32 }

  /// Of all of them.
  public static func byteCount(rules: Int, queues: Int) -> Int { rules * queues * blockBytes }

  /// - Parameter rules: how many there are.
  public static func offset(of counter: Counter, rule: Int, queue: Int, rules: Int) -> Int {
    (queue * rules + rule) * blockBytes + counter.rawValue * 8
  }
}
