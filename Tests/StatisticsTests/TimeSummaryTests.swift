import Channel
import Statistics
import Testing

@Suite struct TimeSummaryTests {
  private func summary(_ values: [UInt64]) throws -> TimeSummary {
    let page = try CounterPage(capacity: 1, histograms: 1)
    let writer = page.histogramWriter(0, named: ["tx_q3_time_ring"])
    for value in values { writer.record(value, in: 0) }
    return TimeSummary(page.readHistograms()[0])
  }

  @Test func percentilesAreThoseOfTheValues() throws {
    let summary = try summary((1...1000).map { UInt64($0 * 1000) })
    #expect(summary.count == 1000 && summary.highest == 1_000_000)
    for (found, wanted) in [
      (summary.median, 500_000), (summary.percentile99, 990_000), (summary.percentile999, 999_000),
    ] as [(UInt64, UInt64)] {
      #expect(found >= wanted && found <= wanted + wanted / 64, "\(found), \(wanted)")
    }
    #expect(summary.sum == 500_500_000)
    // 2^8, 2^10, … ns: of multiples of 1000, none, 1, 4, 16, 65 and so on are below.
    #expect(Array(summary.below.prefix(6)) == [0, 1, 4, 16, 65, 262])
    #expect(summary.below.last == 1000)
    #expect(summary.place?.direction == "tx" && summary.place?.room == "ring")
  }

  @Test func whatNobodyCountedIsNothing() throws {
    let summary = try summary([])
    #expect(summary.count == 0 && summary.median == 0 && summary.highest == 0)
  }

  @Test func countsThatNobodyCanHaveCountedDoNotOverflow() throws {
    var reading = HistogramReading(
      name: "x", sum: .max, highest: .max,
      counts: [UInt64](repeating: .max, count: HistogramLayout.counts))
    #expect(TimeSummary(reading).count == UInt64(HistogramLayout.counts) << 40)
    reading.counts = []
    #expect(TimeSummary(reading).place == nil)
  }

  @Test func prometheusHasThemAsAHistogramInSeconds() throws {
    var page = PrometheusText(isUp: true)
    page.add([try summary([200, 2000, 20_000])])
    #expect(page.text.contains("# TYPE martlet_time_seconds histogram\n"))
    let labels = "direction=\"tx\",queue=\"3\",room=\"ring\""
    #expect(page.text.contains("martlet_time_seconds_bucket{\(labels),le=\"2.56e-07\"} 1\n"))
    #expect(page.text.contains("martlet_time_seconds_bucket{\(labels),le=\"+Inf\"} 3\n"))
    #expect(page.text.contains("martlet_time_seconds_count{\(labels)} 3\n"))
    #expect(page.text.contains("martlet_time_seconds_sum{\(labels)} 2.22e-05\n"))
  }
}
