import Benchmarks
import RadioLink
import Testing

@Suite struct EarlyDeliveryBenchmarkTests {
  @Test func earlyDeliveryIsQuickerAndSmallerOnTheSameLosses() throws {
    let benchmark = EarlyDeliveryBenchmark(losses: [0, 0.05], flows: 16, packets: 2000, seed: 1)
    let results = try benchmark.run()
    #expect(results.count == 6)
    func result(_ loss: Double, _ delivery: PacketDelivery) throws -> EarlyDeliveryBenchmark.Result
    {
      try #require(results.first { $0.loss == loss && $0.delivery == delivery })
    }
    let (inOrder, early) = (try result(0.05, .linkOrder), try result(0.05, .early))
    #expect(inOrder.lostPDUs == early.lostPDUs && early.lostPDUs > 0)
    #expect(inOrder.packetsNotHit == early.packetsNotHit && early.packetsNotHit < 2000)
    #expect(early.percentile99 < inOrder.median)
    #expect(early.peakBytes < inOrder.peakBytes / 4)
    #expect(inOrder.overtaken == 0 && early.overtaken > 0)
    // Without a loss there is no difference.
    #expect(try result(0, .linkOrder).percentile99 == result(0, .early).percentile99)
  }

  @Test func chartsAndTablesSayWhatTheyAreGiven() {
    let chart = BarChart(
      title: "a < b", caption: "c & d", groups: ["1 %", "5 %"], series: ["off", "on"],
      panels: [.init(title: "ms", values: [[4, 12], [1.26, 2]])])
    #expect(chart.svg.hasPrefix("<svg xmlns=") && chart.svg.hasSuffix("</svg>\n"))
    for text in ["a &lt; b", "c &amp; d", ">1.3<", ">12.0<", ">1 %<"] {
      #expect(chart.svg.contains(text))
    }
    // Background, a square for each series, a bar for each value.
    #expect(chart.svg.split(separator: "<rect").count - 1 == 1 + 2 + 4)
    var table = TextTable(columns: ["a", "b", "number"])
    table.add(["long", "c", "7"])
    #expect(table.text == "a     b  number\nlong  c       7")
  }

  @Test(arguments: [
    (0, 0, "0"), (1.005, 1, "1.0"), (-2.55, 0, "-3"), (-0.001, 1, "0.0"), (12.349, 2, "12.35"),
  ])
  func decimalsAreRounded(value: Double, digits: Int, text: String) {
    #expect(decimal(value, digits) == text)
  }
}
