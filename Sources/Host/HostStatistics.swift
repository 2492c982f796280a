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
  /// What hosts before this one have counted, added to what is published as a whole.
  private let before: [UInt64]

  /// Counters of the host as a whole, which come first.
  private static let hostNames = ["device_reconnects", "landlock_version"]
  /// Counters of each queue, in the order in which they are published.
  private static let queueNames =
    [
      "rx_q%_packets", "rx_q%_bytes", "rx_q%_errors", "rx_q%_dropped_ring_full", "tx_q%_packets",
      "tx_q%_bytes", "tx_q%_errors", "q%_doorbells", "rx_q%_segments_host", "rx_q%_segments_device",
      "rx_q%_segments_instance", "q%_sleeps", "q%_interrupts",
    ]
    + RingLevels.names.flatMap { ["q%_ring_level_\($0)", "q%_ring_peak_\($0)"] }
  private static let firstRingName = queueNames.count - 2 * RingLevels.names.count

  /// Histograms that a page for so many queues needs.
  static func histograms(queues: Int) -> Int { queues * PathTimes.Room.allCases.count }

  /// Entries that a page for so many queues needs.
  /// - Parameter isShared: whether there may be many instances.
  static func capacity(queues: Int, isShared: Bool = false) -> Int {
    hostNames.count + queues * queueNames.count + maximumDeviceCounters
      + (isShared
        ? SharedCounter.allCases.count + 64 * InstanceCounter.allCases.count
          + StagePlan.maximumStages * StageCounter.allCases.count : 0)
  }
  /// Counters of the device that are shown; a driver that names more has the rest left out.
  private static let maximumDeviceCounters = 64

  /// - Parameters:
  ///   - device: names of what the device itself counts.
  ///   - isShared: whether there may be many instances.
  ///   - isResumed: whether hosts before this one have counted in the page.
  init(
    page: consuming CounterPage, queues: Int, device: [String], isShared: Bool = false,
    isResumed: Bool = false
  ) {
    self.page = page
    let base = Self.capacity(queues: queues)
    firstShared = isShared ? base : nil
    before = isResumed ? self.page.values(upTo: base) : []
    firstDeviceCounter = Self.hostNames.count + queues * Self.queueNames.count
    deviceCounters = min(device.count, Self.maximumDeviceCounters)
    if isShared {
      for counter in SharedCounter.allCases {
        name(base + counter.rawValue, counter.name, keepsValue: isResumed)
      }
    }
    for (index, text) in device.prefix(deviceCounters).enumerated() {
      name(firstDeviceCounter + index, text, keepsValue: isResumed)
    }
    for (index, text) in Self.hostNames.enumerated() { name(index, text, keepsValue: isResumed) }
    let shownNames = isShared ? Set([8, 9]) : Set(0..<2 * RingLevels.names.count)
    for queue in 0..<queues {
      for (index, text) in Self.queueNames.enumerated() {
        // The channel's rings are those of each instance, where there are many.
        let ring = index - Self.firstRingName
        guard ring < 0 || shownNames.contains(ring) else { continue }
        let parts = text.split(separator: "%", omittingEmptySubsequences: false)
        name(
          Self.hostNames.count + queue * Self.queueNames.count + index,
          parts.joined(separator: "\(queue)"), keepsValue: isResumed)
      }
    }
  }

  private func name(_ entry: Int, _ text: String, keepsValue: Bool) {
    let value = keepsValue ? page.value(entry) : 0
    page.name(entry, text)
    page.set(entry, value)
  }

  /// All that has been published.
  var counters: [(name: String, value: UInt64)] { page.read() }

  /// A counter that only grows, whoever counts it.
  private func publish(_ entry: Int, _ value: UInt64) {
    page.set(entry, entry < before.count ? before[entry] &+ value : value)
  }

  func publish(reconnects: UInt64) { publish(0, reconnects) }
  func publish(landlock version: Int) { page.set(1, UInt64(version)) }

  func publish(device counters: [UInt64]) {
    for (index, value) in counters.prefix(deviceCounters).enumerated() {
      publish(firstDeviceCounter + index, value)
    }
  }

  func publish(_ report: PathReport, queue: Int) {
    let base = Self.hostNames.count + queue * Self.queueNames.count
    let driver = report.driver
    publish(base, driver.receivedPackets)
    publish(base + 1, driver.receivedBytes)
    publish(base + 2, driver.receiveErrors)
    publish(base + 3, report.dropsRingFull)
    publish(base + 4, driver.sentPackets)
    publish(base + 5, driver.sentBytes)
    publish(base + 6, driver.sendErrors)
    publish(base + 7, driver.doorbells)
    page.set(base + 8, UInt64(report.segmentsWithHost))
    page.set(base + 9, UInt64(report.segmentsWithDevice))
    page.set(base + 10, UInt64(report.segmentsWithInstance))
    for (index, level) in report.levels.all.enumerated() {
      guard let level else { continue }
      let entry = base + Self.firstRingName + 2 * index
      page.set(entry, UInt64(level))
      if UInt64(level) > page.value(entry + 1) { page.set(entry + 1, UInt64(level)) }
    }
  }

  /// Where the thread of a queue counts times: as long as this object lives.
  func times(queue: Int) -> PathTimes {
    let rooms = PathTimes.Room.allCases
    guard page.histogramCount >= (queue + 1) * rooms.count else { return PathTimes() }
    return PathTimes(
      page.histogramWriter(queue * rooms.count, named: PathTimes.names(queue)))
  }

  func publish(_ report: PathReport, _ counts: SleepCounts, queue: Int) {
    publish(report, queue: queue)
    let base = Self.hostNames.count + queue * Self.queueNames.count
    publish(base + 11, counts.sleeps)
    publish(base + 12, counts.interrupts)
  }

  // MARK: Many instances

  /// Names an instance's counters, which are 0 then; without a name they are not shown. While no queue thread has the
  /// instance.
  /// - Parameter isResumed: whether a host before has counted for it: what only grows goes on.
  func show(_ isShown: Bool, instance: Int, isResumed: Bool = false) {
    for counter in InstanceCounter.allCases {
      guard let entry = entry(instance, counter.rawValue) else { return }
      name(
        entry, isShown ? counter.name(instance) : "",
        keepsValue: isResumed && !counter.isState)
    }
  }

  func add(_ change: UInt64, instance: Int, counter: Int) {
    if let entry = entry(instance, counter) { page.add(entry, change) }
  }

  func add(_ change: UInt64, shared counter: Int) {
    if let firstShared { page.add(firstShared + counter, change) }
  }

  /// Names a stage's counters, which go on where a stage of that place has counted before.
  func show(stage place: Int, _ name: String) {
    for counter in StageCounter.allCases {
      let word = place * StageCounter.allCases.count + counter.rawValue
      if let entry = stageEntry(word) {
        self.name(entry, counter.name(name), keepsValue: counter != .inside)
      }
    }
  }

  func add(_ change: UInt64, stageWord word: Int) {
    if let entry = stageEntry(word) { page.add(entry, change) }
  }

  private func stageEntry(_ word: Int) -> Int? {
    firstShared.map {
      $0 + SharedCounter.allCases.count + 64 * InstanceCounter.allCases.count + word
    }
  }

  private func entry(_ instance: Int, _ counter: Int) -> Int? {
    firstShared.map {
      $0 + SharedCounter.allCases.count + instance * InstanceCounter.allCases.count + counter
    }
  }
}
