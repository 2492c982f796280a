import Glibc
import Testing

@testable import Channel

@Suite struct HistogramTests {
  @Test func everyValueHasTheCounterThatCountsFromBelowIt() {
    var values: [UInt64] = Array(0...2000)
    for power in 8...33 as ClosedRange<UInt64> {
      values += [1 << power - 1, 1 << power, 1 << power + 1, 3 << (power - 1)]
    }
    values += [HistogramLayout.highestValue, .max]
    var last = -1
    for value in values.sorted() {
      let index = HistogramLayout.index(of: value)
      #expect(index >= last && index < HistogramLayout.counts)
      last = index
      let lowest = HistogramLayout.lowestValue(at: index)
      let counted = min(value, HistogramLayout.highestValue)
      #expect(lowest <= counted)
      // To two digits.
      #expect(counted - lowest <= lowest / 128)
      #expect(HistogramLayout.index(of: lowest) == index)
    }
    #expect(last == HistogramLayout.counts - 1)
  }

  @Test func whatIsRecordedIsReadByAnother() throws {
    let page = try CounterPage(capacity: 3, histograms: 2)
    page.name(0, "rx_q0_packets")
    let writer = page.histogramWriter(1, named: ["rx_q0_time_driver"])
    for value in [5, 5, 300, 70_000] as [UInt64] { writer.record(value, in: 0) }
    let reader = try CounterPage(
      adopting: try page.makeReadOnlyDescriptor(), capacity: 3, histograms: 2, writable: false)
    let histograms = reader.readHistograms()
    #expect(histograms.map(\.name) == ["rx_q0_time_driver"])
    #expect(histograms[0].sum == 70_310 && histograms[0].highest == 70_000)
    #expect(histograms[0].counts[5] == 2 && histograms[0].counts.reduce(0, +) == 4)
    #expect(histograms[0].counts[HistogramLayout.index(of: 300)] == 1)
    #expect(reader.read().map(\.name) == ["rx_q0_packets"])
    // Another writer, after a restart, goes on with it.
    page.histogramWriter(0, named: ["", "rx_q0_time_driver"]).record(5, in: 1)
    #expect(reader.readHistograms()[0].counts[5] == 3)
    #expect(page.read().count == 1)
  }
}
