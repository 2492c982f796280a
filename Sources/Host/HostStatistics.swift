import Channel

/// What a host counts, published in a page that others read. Names by DPDK's xstats grammar. Each queue's entries are
/// written by its thread, the device's by the control thread.
@usableFromInline
package final class HostStatistics: Sendable {
  private let page: CounterPage
  private let firstDeviceCounter: Int
  private let deviceCounters: Int
  /// The first counter that instances share; nil where there is one instance only.
  private let firstShared: Int?

  /// Counters of the host as a whole, which come first.
  private static let hostNames = ["device_reconnects", "landlock_version"]
  /// Counters of each queue, in the order in which they are published.
  private static let queueNames = [
    "rx_q%_packets", "rx_q%_bytes", "rx_q%_errors", "rx_q%_dropped_ring_full", "tx_q%_packets",
    "tx_q%_bytes", "tx_q%_errors", "q%_doorbells", "rx_q%_segments_host", "rx_q%_segments_device",
    "rx_q%_segments_instance", "q%_sleeps", "q%_interrupts",
  ]

  /// Entries that a page for so many queues needs.
  /// - Parameter isShared: whether there may be many instances.
  static func capacity(queues: Int, isShared: Bool = false) -> Int {
    hostNames.count + queues * queueNames.count + maximumDeviceCounters
      + (isShared ? SharedCounter.allCases.count + 64 * InstanceCounter.allCases.count : 0)
  }
  /// Counters of the device that are shown; a driver that names more has the rest left out.
  private static let maximumDeviceCounters = 64

  /// - Parameters:
  ///   - device: names of what the device itself counts.
  ///   - isShared: whether there may be many instances.
  init(page: consuming CounterPage, queues: Int, device: [String], isShared: Bool = false) {
    self.page = page
    let base = Self.capacity(queues: queues)
    firstShared = isShared ? base : nil
    if isShared {
      for counter in SharedCounter.allCases {
        self.page.name(base + counter.rawValue, counter.name)
      }
    }
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

  /// All that has been published.
  var counters: [(name: String, value: UInt64)] { page.read() }

  func publish(reconnects: UInt64) { page.set(0, reconnects) }
  func publish(landlock version: Int) { page.set(1, UInt64(version)) }

  func publish(device counters: [UInt64]) {
    for (index, value) in counters.prefix(deviceCounters).enumerated() {
      page.set(firstDeviceCounter + index, value)
    }
  }

  func publish(_ report: PathReport, queue: Int) {
    let base = Self.hostNames.count + queue * Self.queueNames.count
    let driver = report.driver
    page.set(base, driver.receivedPackets)
    page.set(base + 1, driver.receivedBytes)
    page.set(base + 2, driver.receiveErrors)
    page.set(base + 3, report.dropsRingFull)
    page.set(base + 4, driver.sentPackets)
    page.set(base + 5, driver.sentBytes)
    page.set(base + 6, driver.sendErrors)
    page.set(base + 7, driver.doorbells)
    page.set(base + 8, UInt64(report.segmentsWithHost))
    page.set(base + 9, UInt64(report.segmentsWithDevice))
    page.set(base + 10, UInt64(report.segmentsWithInstance))
  }

  func publish(_ report: PathReport, _ counts: SleepCounts, queue: Int) {
    publish(report, queue: queue)
    let base = Self.hostNames.count + queue * Self.queueNames.count
    page.set(base + 11, counts.sleeps)
    page.set(base + 12, counts.interrupts)
  }

  // MARK: Many instances

  /// Names an instance's counters, which are 0 then; without a name they are not shown. While no queue thread has the
  /// instance.
  func show(_ isShown: Bool, instance: Int) {
    for counter in InstanceCounter.allCases {
      guard let entry = entry(instance, counter.rawValue) else { return }
      page.name(entry, isShown ? counter.name(instance) : "")
    }
  }

  func add(_ change: UInt64, instance: Int, counter: Int) {
    if let entry = entry(instance, counter) { page.add(entry, change) }
  }

  func add(_ change: UInt64, shared counter: Int) {
    if let firstShared { page.add(firstShared + counter, change) }
  }

  private func entry(_ instance: Int, _ counter: Int) -> Int? {
    firstShared.map {
      $0 + SharedCounter.allCases.count + instance * InstanceCounter.allCases.count + counter
    }
  }
}
