import Channel
import Memory

/// What the instance counts, published by name.
struct InterfaceCounts {
  var receivedPackets: UInt64 = 0
  var receivedBytes: UInt64 = 0
  var receiveDropped: UInt64 = 0
  var receivedCopiedBytes: UInt64 = 0
  var sentPackets: UInt64 = 0
  var sentBytes: UInt64 = 0
  var sentCopiedBytes: UInt64 = 0
  /// TCP payload that lwIP has moved to memory of its own: probes of a closed window, segments that it splits for a
  /// small one, packets that wait for an address.
  var sentPayloadOfLwIP: UInt64 = 0
  var ringFull: UInt64 = 0
  var strayCompletions: UInt64 = 0

  private static let names = [
    "stack_rx_packets", "stack_rx_bytes", "stack_rx_dropped", "stack_rx_copied_bytes",
    "stack_tx_packets", "stack_tx_bytes", "stack_tx_copied_bytes", "stack_tx_ring_full",
    "stack_tx_stray_completions", "stack_segment_references",
    "stack_tx_lwip_copied_bytes", "stack_zbuf_exhausted", "stack_zbuf_waits", "stack_zbuf_entries",
    "stack_zbuf_extended",
  ]

  static func name(_ page: borrowing CounterPage) {
    for (index, name) in names.enumerated() { page.name(index, name) }
  }

  func publish(_ page: borrowing CounterPage, _ buffers: borrowing SendBufferPool) {
    page.set(0, receivedPackets)
    page.set(1, receivedBytes)
    page.set(2, receiveDropped)
    page.set(3, receivedCopiedBytes)
    page.set(4, sentPackets)
    page.set(5, sentBytes)
    page.set(6, sentCopiedBytes)
    page.set(7, ringFull)
    page.set(8, strayCompletions)
    page.set(9, UInt64(buffers.totalReferences))
    page.set(10, sentPayloadOfLwIP)
    let counts = buffers.counts
    page.set(11, counts.exhausted)
    page.set(12, counts.waits)
    page.set(13, counts.entries)
    page.set(14, counts.extended)
  }
}
