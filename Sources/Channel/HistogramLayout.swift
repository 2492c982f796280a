import CLinux

/// Where a histogram in shared memory counts what: HdrHistogram's buckets (hdrhistogram.org), for values from 0 on, of which
/// two digits count.
///
/// Values below 256 have a counter each. From there on each doubling has 128: the eight highest bits of a value say
/// which. Before the counters lie 64 bytes: the sum of all values, the highest, the name, ended by a zero.
public enum HistogramLayout {
  /// The highest value that has a counter; what is higher counts as that.
  public static var highestValue: UInt64 { @inlinable @_noLocks get { 1 << 34 - 1 } }
  /// Counters of a histogram.
  public static let counts = 28 * 128
  static let headerBytes = 64
  /// Bytes of a histogram.
  public static var byteCount: Int { @inlinable @_noLocks get { 64 + 28 * 128 * 8 } }

  /// The counter for a value.
  @inlinable @_noLocks
  public static func index(of value: UInt64) -> Int {
    let value = value < highestValue ? value : highestValue
    let doublings = 56 &- (value | 255).leadingZeroBitCount
    return (doublings &+ 1) &* 128 &+ Int(truncatingIfNeeded: value >> UInt64(doublings)) &- 128
  }

  /// The lowest value that a counter counts.
  public static func lowestValue(at index: Int) -> UInt64 {
    if index < 256 { return UInt64(index) }
    let doublings = index / 128 - 1
    return UInt64(index % 128 + 128) << UInt64(doublings)
  }
}

/// Histograms that lie behind each other in shared memory, to write: one thread writes with plain stores, others read
/// meanwhile.
@frozen
public struct HistogramWriter: @unchecked Sendable {
  // Invariant: points at `count` times `HistogramLayout.byteCount` bytes that stay mapped as long as the page that they are
  // in.
  @usableFromInline let base: UnsafeMutableRawPointer

  @usableFromInline let count: Int

  /// Counts a value.
  /// - Parameter index: which histogram counts it.
  @inlinable @_noLocks
  public func record(_ value: UInt64, in index: Int) {
    precondition(index >= 0 && index < count)
    let base = base + index &* HistogramLayout.byteCount
    let place = base + 64 + HistogramLayout.index(of: value) &* 8
    relaxed_store64(place, relaxed_load64(place) &+ 1)
    relaxed_store64(base, relaxed_load64(base) &+ value)
    if value > relaxed_load64(base + 8) { relaxed_store64(base + 8, value) }
  }
}

/// What a histogram in shared memory had counted when it was read.
public struct HistogramReading: Equatable, Sendable {
  /// By DPDK's xstats grammar, such as `q0_time_rx_driver`.
  public var name: String
  /// Of all values.
  public var sum: UInt64
  public var highest: UInt64
  /// As ``HistogramLayout`` has them.
  public var counts: [UInt64]

  public init(name: String, sum: UInt64, highest: UInt64, counts: [UInt64]) {
    self.name = name
    self.sum = sum
    self.highest = highest
    self.counts = counts
  }
}
