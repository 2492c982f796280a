import Channel

/// What an instance counts, published by name: `martlet run` compares it with what host, device and wire count.
public struct InterfaceCounts: Sendable {
  /// Packets that came over the channel.
  public var receivedPackets: UInt64 = 0
  /// How many of them the stack did not take.
  public var receiveDropped: UInt64 = 0
  /// Bytes of those that it took.
  public var receivedBytes: UInt64 = 0
  /// How many bytes of them were copied.
  public var receivedCopiedBytes: UInt64 = 0
  /// Packets that it has sent.
  public var sentPackets: UInt64 = 0
  /// Their bytes.
  public var sentBytes: UInt64 = 0
  /// How many bytes of them were copied.
  public var sentCopiedBytes: UInt64 = 0
  /// Times that nothing could be sent for want of room or memory.
  public var ringFull: UInt64 = 0
  /// Completions of no packet under way.
  public var strayCompletions: UInt64 = 0
  /// How often the stack copies each byte of a packet, by design. Any more is a mistake.
  public var copiesPerByte: UInt64 = 0

  private static let names = [
    "stack_rx_packets", "stack_rx_bytes", "stack_rx_dropped", "stack_rx_copied_bytes",
    "stack_tx_packets", "stack_tx_bytes", "stack_tx_copied_bytes", "stack_tx_ring_full",
    "stack_tx_stray_completions", "stack_segment_references", "stack_copies_per_byte",
  ]

  /// Nothing has been counted.
  public init() {}

  /// Names the counters, once, from 0 on.
  /// - Returns: the number of the first that is free.
  @discardableResult
  public static func name(_ page: borrowing CounterPage) -> Int {
    for (index, name) in names.enumerated() { page.name(index, name) }
    return names.count
  }

  /// Shows what has been counted.
  /// - Parameters:
  ///   - page: the instance's.
  ///   - references: to segments of the stack's own pool.
  public func publish(_ page: borrowing CounterPage, _ references: Int) {
    page.set(0, receivedPackets)
    page.set(1, receivedBytes)
    page.set(2, receiveDropped)
    page.set(3, receivedCopiedBytes)
    page.set(4, sentPackets)
    page.set(5, sentBytes)
    page.set(6, sentCopiedBytes)
    page.set(7, ringFull)
    page.set(8, strayCompletions)
    page.set(9, UInt64(references))
    page.set(10, copiesPerByte)
  }
}
