import CLinux
import Channel

/// How long packets of one queue stay where, counted in histograms that others read: one turn in ``interval`` is timed, and
/// each time is that of a burst. One thread.
@usableFromInline
package struct PathTimes {
  // Invariant: the page that they are in outlives all queue threads: HostStatistics has it.
  private var histograms: HistogramWriter?
  /// Whether a mark waits for something to have been taken.
  @usableFromInline var waits = false
  private var channel = Mark()
  private var ring = Mark()

  /// Of what is waited for: up to where, since when.
  private struct Mark {
    var isSet = false
    var index: UInt32 = 0
    /// Of the instance, where there are many.
    var slot = 0
    /// In nanoseconds of the monotonic clock.
    var since: UInt64 = 0
  }

  /// Where a packet's time is spent.
  @usableFromInline
  package enum Room: Int, CaseIterable {
    /// The driver hands over what the device has received.
    case receive
    /// The host finds out whose it is and copies it; where there is one instance, it puts it into its ring.
    case deliver
    /// From there until the instance has taken it.
    case channel
    /// The host takes what is to be sent, checks it, and the driver hands it to the device.
    case transmit
    /// From there until the device has done with it.
    case ring
    /// In a stage.
    case stage

    /// By DPDK's xstats grammar, in nanoseconds.
    func name(_ queue: Int) -> String {
      switch self {
      case .receive: "rx_q\(queue)_time_driver"
      case .deliver: "rx_q\(queue)_time_host"
      case .channel: "rx_q\(queue)_time_channel"
      case .transmit: "tx_q\(queue)_time_host"
      case .ring: "tx_q\(queue)_time_ring"
      case .stage: "rx_q\(queue)_time_stage"
      }
    }
  }

  /// The names of a queue's histograms, in the order of ``Room``.
  static func names(_ queue: Int) -> [String] { Room.allCases.map { $0.name(queue) } }

  /// Turns of which one is timed; a power of two.
  @usableFromInline static let interval: UInt32 = 32

  /// Times are thrown away.
  package init() {}

  /// - Parameter histograms: one for each ``Room``.
  init(_ histograms: HistogramWriter) { self.histograms = histograms }

  @usableFromInline
  mutating func record(_ room: Room, _ nanoseconds: UInt64) {
    histograms?.record(nanoseconds, in: room.rawValue)
  }

  // MARK: Marks

  /// The instance has been given all up to an index of its receive ring.
  @usableFromInline
  mutating func markChannel(_ index: UInt32, slot: Int = 0, at now: UInt64) {
    if channel.isSet { return }
    channel = Mark(isSet: true, index: index, slot: slot, since: now)
    waits = true
  }

  /// The device has been given so many packets in all.
  @usableFromInline
  mutating func markRing(_ given: UInt32, at now: UInt64) {
    if ring.isSet { return }
    ring = Mark(isSet: true, index: given, since: now)
    waits = true
  }

  /// The instance whose ring is looked at; nil for none.
  var markedSlot: Int? { channel.isSet ? channel.slot : nil }

  /// - Parameters:
  ///   - taken: how far the instance has read its receive ring; nil where it is no more.
  ///   - done: packets that the device has done with in all.
  @usableFromInline
  mutating func look(taken: UInt32?, done: UInt32) {
    let isTaken =
      channel.isSet && taken.map { Int32(bitPattern: $0 &- channel.index) >= 0 } ?? false
    let isDone = ring.isSet && Int32(bitPattern: done &- ring.index) >= 0
    if isTaken || isDone {
      let now = monotonic_nanoseconds()
      if isTaken {
        record(.channel, now &- channel.since)
        channel.isSet = false
      }
      if isDone {
        record(.ring, now &- ring.since)
        ring.isSet = false
      }
    }
    if taken == nil { channel.isSet = false }
    waits = channel.isSet || ring.isSet
  }

  /// The thread is about to sleep: when the instance takes what it has, nobody sees.
  mutating func forgetChannel() {
    channel.isSet = false
    waits = ring.isSet
  }
}

/// Histograms of one queue's times that nobody reads, for measurements of what they cost.
package final class HostTimesPage {
  private let page: CounterPage
  package let times: PathTimes

  package init() throws {
    let page = try CounterPage(capacity: 1, histograms: HostStatistics.histograms(queues: 1))
    times = PathTimes(page.histogramWriter(0, named: PathTimes.names(0)))
    self.page = page
  }
}
