import Memory

/// Packets that wait for a place on a ring, and can be taken back until they have one: a retransmission that an
/// acknowledgement has made needless, a frame that is too late. What a ``TransformingQueuePair`` does to a packet is not done
/// to one that was taken back. One thread.
public struct TransmitQueue: ~Copyable {
  private var waiting: Burst
  /// Packets that were taken back.
  public private(set) var cancelled: UInt64 = 0

  /// - Parameter slots: how many can wait; a packet may have several.
  public init(slots: Int) { waiting = Burst(capacity: slots) }

  /// Slots that wait.
  public var count: Int { waiting.count }

  /// Moves whole packets from a burst's front to the end, as far as there is room.
  public mutating func append(_ packets: inout Burst) {
    var moved = 0
    while moved < packets.count, let last = packets.endOfPacket(from: moved),
      last &- moved < waiting.room
    {
      for index in moved...last { waiting.append(packets[index]) }
      moved = last &+ 1
    }
    packets.removeFirst(moved)
  }

  /// Takes the first waiting packet with a tag back: it never leaves, its bytes are the sender's, and no completion comes.
  /// - Returns: false where none waits: it is on the ring, or done.
  public mutating func cancel(_ tag: UInt16) -> Bool {
    var at = 0
    while at < waiting.count, let last = waiting.endOfPacket(from: at) {
      if waiting[at].tag == tag {
        waiting.remove(from: at, through: last)
        cancelled &+= 1
        return true
      }
      at = last &+ 1
    }
    return false
  }

  /// Puts as many packets on a pair's ring as it takes, the oldest first.
  /// - Throws: as ``NetworkQueuePair/transmit(_:)``.
  public mutating func send<Pair: NetworkQueuePair & ~Copyable>(
    on pair: inout Pair
  ) throws(DriverError) {
    if !waiting.isEmpty { try pair.transmit(&waiting) }
  }
}
