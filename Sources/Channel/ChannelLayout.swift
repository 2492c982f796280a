import Memory

/// Where everything lies in a channel's memory. Both ends compute it from the number of queues and slots; what the
/// memory's header says is compared at attach and never read again, but for the words by which the supervisor
/// asks the instance to end or says that a message waits.
///
/// Header page, then for each queue: a control page (indices and wake words, a cache line each) and four rings of
/// 16-byte slots, each a multiple of a page. Version 1.
public struct ChannelLayout: Sendable, Equatable {
  public static let magic: UInt32 = 0x4c54_524d  // "MRTL"
  public static let version: UInt32 = 1

  public let queues: Int
  /// Slots of each ring: a power of two.
  public let slots: Int

  /// - Returns: nil where the numbers are out of bounds: 1 to 64 queues, 64 to 65536 slots.
  public init?(queues: Int, slots: Int) {
    guard (1...64).contains(queues), (64...65536).contains(slots), slots & (slots - 1) == 0 else {
      return nil
    }
    self.queues = queues
    self.slots = slots
  }

  public var byteCount: Int { Self.page + queues * queueBytes }

  static let page = 4096
  /// Not 0 once the instance should end. On a cache line of its own, which the supervisor writes.
  static let endWord = 64
  /// Beside it: why the host has closed the channel, a raw value of ``EndReason``.
  static let endReason = 68
  /// Counts what the supervisor has sent over the control socket and wants to be read at once.
  static let newsWord = 72
  private var ringBytes: Int { (slots * 16 + Self.page - 1) / Self.page * Self.page }
  private var queueBytes: Int { Self.page + 4 * ringBytes }

  enum Ring: Int { case receive, transmit, completion, free }

  /// Offsets from the memory's start, in bytes.
  func control(_ queue: Int) -> Int { Self.page + queue * queueBytes }
  /// Written by the ring's producer, on a cache line of its own.
  func producerIndex(_ queue: Int, _ ring: Ring) -> Int { control(queue) + ring.rawValue * 128 }
  /// Written by the ring's consumer, on a cache line of its own.
  func consumerIndex(_ queue: Int, _ ring: Ring) -> Int {
    control(queue) + ring.rawValue * 128 + 64
  }
  /// 1 while the host sleeps, or is about to.
  func hostSleeps(_ queue: Int) -> Int { control(queue) + 512 }
  /// 1 while the instance sleeps, or is about to.
  func instanceSleeps(_ queue: Int) -> Int { control(queue) + 576 }
  /// 1 where the instance takes the packets of a burst as aggregates; beside the word that the host reads anyway.
  func wantsAggregates(_ queue: Int) -> Int { instanceSleeps(queue) + 4 }
  func slots(_ queue: Int, _ ring: Ring) -> Int {
    control(queue) + Self.page + ring.rawValue * ringBytes
  }
}
