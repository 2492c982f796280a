/// What clients were refused, by reason.
public struct Refusals: Sendable, Equatable {
  public enum Reason: String, Sendable, CaseIterable {
    /// The stream itself: sizes, types, a client that stops in the middle.
    case malformedMessage = "malformed_message"
    case badVersion = "bad_version"
    /// A command before the version was agreed on, or the version twice.
    case outOfOrder = "out_of_order"
    case unknownCommand = "unknown_command"
    case unexpectedReply = "unexpected_reply"
    case badPayload = "bad_payload"
    case badDescriptors = "bad_descriptors"
    /// More descriptors came than are taken, or than this process may have.
    case lostDescriptors = "lost_descriptors"
    case badDMAMap = "bad_dma_map"
    case badDMAUnmap = "bad_dma_unmap"
    case badRegionAccess = "bad_region_access"
    case badInterrupts = "bad_interrupts"
    /// The client does not read its replies.
    case blockedClient = "blocked_client"
    /// A DMA message was not answered, or answered wrong.
    case failedDMAMessage = "failed_dma_message"
    /// Memory behind a mapping went away.
    case truncatedMemory = "truncated_memory"
    /// The client connected and did not say its version, while others may be waiting.
    case silentClient = "silent_client"
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
