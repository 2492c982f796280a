/// What front-ends were refused, by reason.
public struct FrontEndRefusals: Sendable, Equatable {
  public enum Reason: String, Sendable, CaseIterable {
    /// The stream itself: version, flags, sizes, a front-end that stops in the middle.
    case malformedMessage = "malformed_message"
    case unknownRequest = "unknown_request"
    /// A payload of another size than its request has.
    case badPayload = "bad_payload"
    /// Descriptors that a request lacks, or that it has none of.
    case badDescriptors = "bad_descriptors"
    /// More descriptors came than are taken, or than this process may have.
    case lostDescriptors = "lost_descriptors"
    /// Features that were not offered, or that do not go together, or that come too late.
    case badFeatures = "bad_features"
    /// Regions that overlap, wrap, or have less memory behind them than they say.
    case badMemory = "bad_memory"
    /// A ring that the device has not, or of a size that it cannot have.
    case badRing = "bad_ring"
    /// A ring outside the memory table, or misaligned.
    case badRingAddress = "bad_ring_address"
    /// The front-end does not read its answers.
    case blockedFrontEnd = "blocked_front_end"
    /// Memory behind a region went away.
    case truncatedMemory = "truncated_memory"
    /// The front-end connected and said nothing, while others may be waiting.
    case silentFrontEnd = "silent_front_end"
  }

  private var counts: [Reason: UInt64] = [:]

  public init() {}

  public mutating func count(_ reason: Reason) { counts[reason, default: 0] += 1 }
  public subscript(_ reason: Reason) -> UInt64 { counts[reason] ?? 0 }
  public var total: UInt64 { counts.values.reduce(0, +) }
  /// Those that happened, in a fixed order.
  public var named: [(name: String, value: UInt64)] {
    Reason.allCases.compactMap { reason in counts[reason].map { (reason.rawValue, $0) } }
  }
}
