/// What is done with the packets of a rule.
public struct RuleActions: Sendable, Hashable {
  public var verdict = Verdict.deliver
  /// Instances that get a copy besides, whatever the verdict is.
  public var clones: [String] = []
  /// A number that goes with the packet.
  public var mark: UInt32?
  /// What is beyond it is dropped.
  public var limit: RateLimit?
  /// Stages that the packet goes through, in this order.
  public var stages: [String] = []

  public enum Verdict: Sendable, Hashable {
    /// By claims, as without rules.
    case deliver
    case drop
    /// To the instance of that name; with several, to the one that ``PacketHeader/flowHash`` chooses.
    case to([String])
  }

  public init(_ verdict: Verdict = .deliver) { self.verdict = verdict }
}

/// How much of something there may be: a bucket of tokens.
public struct RateLimit: Sendable, Hashable {
  public enum Unit: String, Sendable, Hashable, CaseIterable {
    case packets = "pps"
    case bits = "bit/s"
  }

  /// Each second, at least 1.
  public var rate: UInt64
  public var unit: Unit
  /// What may come at once: packets, or bytes where the unit is bits. nil leaves it to the host.
  public var burst: UInt64?

  public init(_ rate: UInt64, _ unit: Unit, burst: UInt64? = nil) {
    self.rate = rate
    self.unit = unit
    self.burst = burst
  }
}
