import Driver
import Memory
import RadioLink
import RadioLinkDevice
import Testing

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

/// Pairs of packets of one flow of which the later one came up first, by the number of the earlier one.
private func overtaken(_ outcome: Outcome) -> [Int] {
  var highest: [Int: Int] = [:]
  var numbers: [Int] = []
  for arrival in outcome.arrivals {
    if arrival.inFlow < highest[arrival.flow] ?? -1 { numbers.append(arrival.number) }
    highest[arrival.flow] = max(highest[arrival.flow] ?? -1, arrival.inFlow)
  }
  return numbers
}

@Suite struct DeliveryTests {
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

  @Test(arguments: [0, 0.01, 0.1, 0.3], [PacketDelivery.early, .earlyByFlow])
  func earlyDeliveryLosesAndRepeatsNothing(loss: Double, delivery: PacketDelivery) throws {
    let bench = try Bench(options(loss))
    bench.device.recordLosses()
    let packets = traffic(count: 3000)
    let outcome = try run(bench, delivery, packets)
    expectOwnBytes(outcome, packets)
    let numbers = outcome.arrivals.map(\.number)
    #expect(numbers.sorted() == Array(0..<3000))
    #expect((numbers == Array(0..<3000)) == (loss == 0))
    #expect((outcome.reassembly.earlyPackets == 0) == (loss == 0))
    // Within a flow only packets that a loss has hit are overtaken.
    #expect(overtaken(outcome).allSatisfy(outcome.hitPackets.contains))
    expectClean(bench, outcome)
  }

  /// A packet that no loss has hit comes up when its last piece arrives: at the same time as without any loss behind
  /// it. In link order some wait.
  @Test func whatNoLossHasHitDoesNotWait() throws {
    var waits: [PacketDelivery: UInt64] = [:]
    for delivery in [PacketDelivery.linkOrder, .early] {
      let bench = try Bench(options(0.05))
      bench.device.recordLosses()
      // Slow enough that no queue forms: 6 ms are the link's delay and a transmission.
      let packets = traffic(count: 2000, gap: 500_000)
      let outcome = try run(bench, delivery, packets)
      let latencies = outcome.arrivals.filter { !outcome.hitPackets.contains($0.number) }
        .map { $0.time - packets[$0.number].time }
      waits[delivery] = latencies.max() ?? 0
    }
    #expect(try #require(waits[.early]) < 6_000_000)
    #expect(try #require(waits[.linkOrder]) > 12_000_000)
  }

  /// By flow, a packet that began to arrive is not overtaken by its own flow; with the same losses, early delivery lets
  /// that happen.
  @Test func flowsKeepTheOrderInWhichTheirPacketsBegan() throws {
    var small = options(0.1)
    // Most packets are cut several times: their beginnings are known when they are hit.
    small.payloadBytes = 256
    let packets = traffic(count: 3000, gap: 100_000)
    var counts: [Int] = []
    for delivery in [PacketDelivery.early, .earlyByFlow] {
      let bench = try Bench(small)
      let outcome = try run(bench, delivery, packets)
      expectClean(bench, outcome)
      counts.append(overtaken(outcome).count)
    }
    #expect(counts[1] < counts[0] / 2)
  }

  @Test func earlyDeliveryKeepsLessMemory() throws {
    var peaks: [Int] = []
    for delivery in [PacketDelivery.linkOrder, .earlyByFlow, .early] {
      peaks.append(
        try run(try Bench(options(0.05)), delivery, traffic(count: 3000)).reassembly.peakHeldBytes)
    }
    #expect(peaks[2] < peaks[1] && peaks[1] < peaks[0])
  }

  /// More than two rounds of the 4096 sequence numbers.
  @Test(arguments: [PacketDelivery.linkOrder, .early, .earlyByFlow], [16, 2048] as [UInt64])
  func sequenceNumbersWrap(delivery: PacketDelivery, window: UInt64) throws {
    var narrow = options(0.05)
    narrow.payloadBytes = 256
    narrow.window = window
    let bench = try Bench(narrow)
    let packets = traffic(count: 4000)
    let outcome = try run(bench, delivery, packets, ringSize: 2048, segments: 6000)
    #expect(outcome.arrivals.map(\.number).sorted() == Array(0..<4000))
    #expect(outcome.statistics.receivedBytes > 2 * 4096 * 256)
    #expect(outcome.reassembly.peakHeldBytes <= Int(window) * 256 + 64 * 256)
    expectOwnBytes(outcome, packets)
    expectClean(bench, outcome, segments: 6000)
  }

  /// All buffers wait for a missing PDU, and it still gets in.
  @Test(arguments: [PacketDelivery.linkOrder, .early, .earlyByFlow])
  func fewBuffersDelayButDoNotBlock(delivery: PacketDelivery) throws {
    let bench = try Bench(options(0.3))
    let packets = traffic(count: 1000)
    let outcome = try run(bench, delivery, packets, ringSize: 64, segments: 48)
    #expect(outcome.arrivals.map(\.number).sorted() == Array(0..<1000))
    #expect(outcome.pdusWithoutBuffer > 0 || delivery != .linkOrder)
    expectOwnBytes(outcome, packets)
    expectClean(bench, outcome, segments: 48)
  }

  @Test func theSameSeedLosesTheSame() throws {
    var runs: [[Int]] = []
    for seed in [3, 3, 4] as [UInt64] {
      let bench = try Bench(options(0.1, seed: seed))
      runs.append(try run(bench, .early, traffic(count: 500)).arrivals.map(\.number))
    }
    #expect(runs[0] == runs[1] && runs[0] != runs[2])
  }
}
