import Channel
import Driver

/// What a host counts, published in a page that others read. Names by DPDK's xstats grammar.
@usableFromInline
struct HostStatistics: ~Copyable {
  private let page: CounterPage
  private var sleeps: UInt64 = 0
  private var interrupts: UInt64 = 0
  private var reconnects: UInt64 = 0
  private let firstDeviceCounter: Int
  private let deviceCounters: Int

  /// Counters of the host as a whole, which come first.
  private static let hostNames = ["host_sleeps", "host_interrupts", "device_reconnects"]
  /// Counters of each queue, in the order in which they are published.
  private static let queueNames = [
    "rx_q%_packets", "rx_q%_bytes", "rx_q%_errors", "rx_q%_dropped_ring_full", "tx_q%_packets",
    "tx_q%_bytes", "tx_q%_errors", "q%_doorbells", "rx_q%_segments_host", "rx_q%_segments_device",
    "rx_q%_segments_instance",
  ]

  /// Entries that a page for so many queues needs.
  static func capacity(queues: Int) -> Int {
    hostNames.count + queues * queueNames.count + maximumDeviceCounters
  }
  /// Counters of the device that are shown; a driver that names more has the rest left out.
  private static let maximumDeviceCounters = 64

  /// - Parameter device: names of what the device itself counts.
  init(page: consuming CounterPage, queues: Int, device: [String]) {
    self.page = page
    firstDeviceCounter = Self.hostNames.count + queues * Self.queueNames.count
    deviceCounters = min(device.count, Self.maximumDeviceCounters)
    for (index, name) in device.prefix(deviceCounters).enumerated() {
      self.page.name(firstDeviceCounter + index, name)
    }
    for (index, name) in Self.hostNames.enumerated() { self.page.name(index, name) }
    for queue in 0..<queues {
      for (index, name) in Self.queueNames.enumerated() {
        let parts = name.split(separator: "%", omittingEmptySubsequences: false)
        self.page.name(
          Self.hostNames.count + queue * Self.queueNames.count + index,
          parts.joined(separator: "\(queue)"))
      }
    }
  }

  mutating func countSleep() { sleeps += 1 }
  mutating func countReconnect() { reconnects += 1 }
  mutating func countInterrupts(_ count: UInt64) { interrupts += count }

  func publish(device counters: [UInt64]) {
    for (index, value) in counters.prefix(deviceCounters).enumerated() {
      page.set(firstDeviceCounter + index, value)
    }
  }

  @usableFromInline
  func publish<QueuePair>(
    _ paths: borrowing PathArray<QueuePair>
  ) where QueuePair: NetworkQueuePair & ~Copyable {
    page.set(0, sleeps)
    page.set(1, interrupts)
    page.set(2, reconnects)
    for queue in 0..<paths.count {
      let base = Self.hostNames.count + queue * Self.queueNames.count
      let driver = paths[queue].statistics
      page.set(base, driver.receivedPackets)
      page.set(base + 1, driver.receivedBytes)
      page.set(base + 2, driver.receiveErrors)
      page.set(base + 3, paths[queue].counts.dropsRingFull)
      page.set(base + 4, driver.sentPackets)
      page.set(base + 5, driver.sentBytes)
      page.set(base + 6, driver.sendErrors)
      page.set(base + 7, driver.doorbells)
      page.set(base + 8, UInt64(paths[queue].ledger.hostCount))
      page.set(base + 9, UInt64(paths[queue].ledger.deviceCount))
      page.set(base + 10, UInt64(paths[queue].ledger.instanceCount))
    }
  }
}
