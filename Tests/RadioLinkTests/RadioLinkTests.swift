import Driver
import Memory
import RadioLink
import RadioLinkDevice
import Testing

@Suite struct DeliveryTests {
  private func options(_ loss: Double, seed: UInt64 = 7) -> RadioLinkOptions {
    var options = RadioLinkOptions()
    options.loss = loss
    options.seed = seed
    return options
  }

  private func expectOwnBytes(_ outcome: Outcome, _ packets: [(time: UInt64, bytes: [UInt8])]) {
    let isOwn = outcome.arrivals.allSatisfy { $0.bytes == packets[$0.number].bytes }
    #expect(isOwn)
  }

  private func expectClean(_ bench: Bench, _ outcome: Outcome, segments: Int = 4096) {
    #expect(bench.device.violations.first == [])
    #expect(bench.device.iommu.faults == [])
    #expect(outcome.segmentsBack == segments)
    #expect(outcome.statistics.receiveErrors == 0)
    #expect(outcome.reassembly.heldBytes == 0 && outcome.reassembly.heldSegments == 0)
  }

  @Test(arguments: [0, 0.01, 0.1, 0.3])
  func linkOrderIsKept(loss: Double) throws {
    let bench = try Bench(options(loss))
    let packets = traffic(count: 3000)
    let outcome = try run(bench, .linkOrder, packets)
    expectOwnBytes(outcome, packets)
    #expect(outcome.arrivals.map(\.number) == Array(0..<3000))
    // Packets were cut: some came in two pieces.
    #expect(outcome.mostPieces > 1)
    #expect(outcome.lostPDUs > 0 || loss == 0)
    expectClean(bench, outcome)
  }

  @Test(arguments: [0, 0.01, 0.1, 0.3])
  func earlyDeliveryLosesAndRepeatsNothing(loss: Double) throws {
    let bench = try Bench(options(loss))
    bench.device.recordLosses()
    let packets = traffic(count: 3000)
    let outcome = try run(bench, .early, packets)
    let numbers = outcome.arrivals.map(\.number)
    #expect(numbers.sorted() == Array(0..<3000))
    expectOwnBytes(outcome, packets)
    #expect((numbers == Array(0..<3000)) == (loss == 0))
    expectClean(bench, outcome)
  }
}
