import ArgumentParser
import Benchmarks
import RadioLink

/// `martlet bench early-delivery`.
struct EarlyDelivery: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "early-delivery",
    abstract: "Early delivery on a lossy link, beside delivery in link order.",
    discussion: """
      Runs the RadioLink driver on its model, in virtual time: 100 Mbit/s, 4 ms of delay, a lost PDU is repeated after \
      12 ms. Latency is from the time at which a packet enters the link to that at which the driver hands it up. A \
      packet is "not hit" if none of its own PDUs was lost. All ways of delivery see the same packets and losses.
      """)

  @Option(help: "Losses of PDUs in percent, parted by commas, each from 0 to less than 100.")
  var loss = "1,5,10"
  @Option(help: "Flows, 1 to 1000.") var flows = 16
  @Option(help: "Packets, 1 to 1000000.") var packets = 20000
  @Option(help: "Seed of the traffic and of the losses.") var seed: UInt64 = 1
  @Option(help: "Where the plot goes.")
  var svg = ".build/early-delivery.svg"

  func run() throws {
    try reporting {
      let benchmark = EarlyDeliveryBenchmark(
        losses: try parseLosses(), flows: try check(flows, in: 1...1000, "--flows"),
        packets: try check(packets, in: 1...1_000_000, "--packets"), seed: seed)
      let results: [EarlyDeliveryBenchmark.Result]
      do {
        results = try benchmark.run()
      } catch {
        throw CommandFailure.failed(error)
      }
      writeLine(table(results).text, to: 1)
      do {
        try writeText(chart(results).svg, to: svg)
      } catch {
        throw CommandFailure.failed(error)
      }
      writeLine("plot: \(svg)", to: 1)
    }
  }

  private func parseLosses() throws -> [Double] {
    try loss.split(separator: ",", omittingEmptySubsequences: false).map { part in
      guard let percent = Double(part), percent >= 0, percent < 100 else {
        throw CommandFailure(
          code: 64, text: "--loss takes percentages from 0 to less than 100, such as 1,5,10")
      }
      return percent / 100
    }
  }

  private func check(_ value: Int, in range: ClosedRange<Int>, _ name: String) throws -> Int {
    guard range.contains(value) else {
      throw CommandFailure(
        code: 64, text: "\(name) takes \(range.lowerBound) to \(range.upperBound), not \(value)")
    }
    return value
  }

  private func table(_ results: [EarlyDeliveryBenchmark.Result]) -> TextTable {
    var table = TextTable(columns: [
      "loss", "delivery", "not hit", "p50 ms", "p99 ms", "hit p99 ms", "peak bytes",
      "peak segments", "overtaken", "lost PDUs",
    ])
    for result in results {
      table.add([
        percent(result.loss), result.delivery.title, String(result.packetsNotHit),
        milliseconds(result.median), milliseconds(result.percentile99),
        milliseconds(result.percentile99Hit), String(result.peakBytes),
        String(result.peakSegments), String(result.overtaken), String(result.lostPDUs),
      ])
    }
    return table
  }

  private func chart(_ results: [EarlyDeliveryBenchmark.Result]) -> BarChart {
    let deliveries = EarlyDeliveryBenchmark.deliveries
    func values(_ value: (EarlyDeliveryBenchmark.Result) -> Double) -> [[Double]] {
      deliveries.map { delivery in results.filter { $0.delivery == delivery }.map(value) }
    }
    return BarChart(
      title: "Early delivery on a link with repetition: \(flows) flows, \(packets) packets",
      caption:
        "Latency in virtual time of packets none of whose own PDUs was lost; bytes that waited for other PDUs, at most. Seed \(seed).",
      groups: results.filter { $0.delivery == deliveries[0] }.map { percent($0.loss) + " loss" },
      series: deliveries.map(\.title),
      panels: [
        .init(title: "p50 of packets not hit, ms", values: values { Double($0.median) / 1e6 }),
        .init(
          title: "p99 of packets not hit, ms", values: values { Double($0.percentile99) / 1e6 }),
        .init(title: "peak reassembly, KiB", values: values { Double($0.peakBytes) / 1024 }),
      ])
  }

  private func percent(_ loss: Double) -> String {
    let digits = (loss * 100).rounded() == loss * 100 ? 0 : 2
    return decimal(loss * 100, digits) + " %"
  }

  private func milliseconds(_ nanoseconds: UInt64) -> String {
    decimal(Double(nanoseconds) / 1e6, 2)
  }
}

extension PacketDelivery {
  fileprivate var title: String {
    switch self {
    case .linkOrder: "link order"
    case .early: "early"
    case .earlyByFlow: "early by flow"
    }
  }
}
