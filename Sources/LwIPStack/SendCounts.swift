import Channel
import Memory
import Stacks

/// What lwIP's interface counts of sending from buffers in place, published behind what every stack counts.
struct SendCounts {
  /// TCP payload that lwIP has moved to memory of its own: probes of a closed window, segments that it splits for a
  /// small one, packets that wait for an address.
  var payloadOfLwIP: UInt64 = 0
  private let first: Int

  private static let names = [
    "stack_tx_lwip_copied_bytes", "stack_zbuf_exhausted", "stack_zbuf_waits", "stack_zbuf_entries",
    "stack_zbuf_extended",
  ]

  /// - Parameter first: the number of the page's first counter that is free.
  init(_ page: borrowing CounterPage, from first: Int) {
    self.first = first
    for (index, name) in Self.names.enumerated() { page.name(first + index, name) }
  }

  func publish(_ page: borrowing CounterPage, _ buffers: borrowing SendBufferPool) {
    page.set(first, payloadOfLwIP)
    let counts = buffers.counts
    page.set(first + 1, counts.exhausted)
    page.set(first + 2, counts.waits)
    page.set(first + 3, counts.entries)
    page.set(first + 4, counts.extended)
  }
}
