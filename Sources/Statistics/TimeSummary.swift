import Channel
import Histogram

/// How long packets of a queue stay in a room on their way, as far as it has been sampled.
public struct TimeSummary: Equatable, Sendable {
  /// By DPDK's xstats grammar, such as `rx_q0_time_driver`.
  public var name: String
  /// Bursts that were timed.
  public var count: UInt64
  /// In nanoseconds, to two digits; so are those below.
  public var median: UInt64
  public var percentile99: UInt64
  public var percentile999: UInt64
  public var highest: UInt64
  /// Of all times, in nanoseconds.
  public var sum: UInt64
  /// How many times were below a power of two, from ``firstPower`` on: 2^8 ns, 2^10 ns, and so on.
  public var below: [UInt64]

  /// The lowest bound of ``below`` is 2 to this.
  public static let firstPower = 8
  static let powers = Array(stride(from: firstPower, through: 34, by: 2))

  /// - Parameter reading: of another process, whose word is not believed.
  public init(_ reading: HistogramReading) {
    var histogram = Histogram<UInt64>(
      highestTrackableValue: HistogramLayout.highestValue, numberOfSignificantValueDigits: .two)
    var below = [UInt64](repeating: 0, count: Self.powers.count)
    for (index, count) in reading.counts.enumerated() where count > 0 {
      // Of no meaning, but no overflow.
      let count = min(count, 1 << 40)
      let value = HistogramLayout.lowestValue(at: index)
      // The highest that it stands for: a percentile is never said to be less than it is.
      histogram.record(
        min(HistogramLayout.lowestValue(at: index + 1) - 1, HistogramLayout.highestValue),
        count: count)
      for (place, power) in Self.powers.enumerated() where value < 1 << UInt64(power) {
        below[place] += count
      }
    }
    name = reading.name
    count = histogram.totalCount
    let highest = count == 0 ? 0 : min(reading.highest, HistogramLayout.highestValue)
    self.highest = highest
    median = min(histogram.valueAtPercentile(50), highest)
    percentile99 = min(histogram.valueAtPercentile(99), highest)
    percentile999 = min(histogram.valueAtPercentile(99.9), highest)
    sum = reading.sum
    self.below = below
  }

  /// Names and values, as counters have them.
  public var counters: [(name: String, value: UInt64)] {
    [
      ("\(name)_samples", count), ("\(name)_p50_ns", median), ("\(name)_p99_ns", percentile99),
      ("\(name)_p99_9_ns", percentile999), ("\(name)_max_ns", highest),
    ]
  }

  /// What the name says: `rx`, `0`, `driver`; nil where it says something else.
  public var place: (direction: String, queue: String, room: String)? {
    let words = name.split(separator: "_", maxSplits: 3).map(String.init)
    guard words.count == 4, words[1].first == "q", words[2] == "time" else { return nil }
    return (words[0], String(words[1].dropFirst()), words[3])
  }
}
