import Driver
import EmulatedPCI
import Memory
import RadioLink
import RadioLinkDevice
import Wire

extension EarlyDeliveryBenchmark {
  /// The driver on the model with one loss and one way of delivery, in this process and one thread.
  struct Run {
    let result: Result
    /// Numbers of the packets of which a PDU was lost.
    let hitPackets: Set<Int>

    init(_ benchmark: EarlyDeliveryBenchmark, loss: Double, delivery: PacketDelivery) throws {
      let traffic = benchmark.makeTraffic()
      var options = RadioLinkOptions()
      options.loss = loss
      options.seed = benchmark.seed
      options.window = 2048
      let link = try EmulatedLink(options)
      var log = Log(flows: benchmark.flows)
      let reassembly = try link.carry(traffic, delivery, &log)
      guard log.latencies.count == traffic.count else {
        throw BenchmarkError.missingPackets(traffic.count - log.latencies.count)
      }
      if let first = link.device.violations.first.first {
        throw BenchmarkError.violations("\(first)")
      }
      hitPackets = log.hitPackets
      let notHit = log.latencies.filter { !log.hitPackets.contains($0.number) }.map(\.latency)
      let hit = log.latencies.filter { log.hitPackets.contains($0.number) }.map(\.latency)
      result = Result(
        loss: loss, delivery: delivery, packetsNotHit: notHit.count,
        median: percentile(50, of: notHit), percentile99: percentile(99, of: notHit),
        percentile99Hit: percentile(99, of: hit), peakBytes: reassembly.peakHeldBytes,
        peakSegments: reassembly.peakHeldSegments, overtaken: log.overtaken,
        lostPDUs: log.lostPDUs)
    }
  }
}

/// What a run leaves.
private struct Log {
  var latencies: [(number: Int, latency: UInt64)] = []
  var overtaken = 0
  var hitPackets: Set<Int> = []
  var lostPDUs: UInt64 = 0
  private var highest: [Int]

  init(flows: Int) { highest = Array(repeating: -1, count: flows) }

  /// - Parameter packet: its bytes from the Ethernet header on, as the benchmark made them.
  mutating func note(
    _ packet: UnsafeRawBufferPointer, _ traffic: [(time: UInt64, bytes: [UInt8])], at now: UInt64
  ) {
    func long(_ offset: Int) -> Int {
      Int(
        UInt32(bigEndian: packet.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
    }
    let flow = (Int(packet[34]) << 8 | Int(packet[35])) - 10_000
    let (number, inFlow) = (long(42), long(46))
    latencies.append((number, now - traffic[number].time))
    if inFlow < highest[flow] { overtaken += 1 }
    highest[flow] = max(highest[flow], inFlow)
  }
}

/// The nearest rank.
private func percentile(_ percent: Int, of values: [UInt64]) -> UInt64 {
  if values.isEmpty { return 0 }
  return values.sorted()[max(0, (values.count * percent + 99) / 100 - 1)]
}

/// A model with its memory. Everything that it hands out is used only while it lives.
private final class EmulatedLink {
  let device: RadioLinkDevice
  private let function: InProcessFunction
  private let rings: DMARange
  private let arena: DMARange
  private static let segments = 16384

  init(_ options: RadioLinkOptions) throws {
    device = RadioLinkDevice(wire: NullWire(), options: options)
    device.recordLosses()
    function = InProcessFunction(device)
    rings = try Self.map(1 << 20, at: 0x10_0000, for: device)
    arena = try Self.map(Self.segments * 2048, at: 0x4000_0000, for: device)
  }

  /// Memory that the device may use. It is this object's to deallocate.
  private static func map(
    _ byteCount: Int, at iova: UInt64, for device: RadioLinkDevice
  ) throws -> DMARange {
    let address = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
    address.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    try device.iommu.map(
      iova: iova, byteCount: UInt64(byteCount), address: address, rights: [.read, .write])
    return DMARange(address: address, iova: iova, byteCount: byteCount)
  }

  deinit {
    rings.address.deallocate()
    arena.address.deallocate()
  }

  /// Sends all packets from the far end, and notes each one that the driver hands up.
  func carry(
    _ traffic: [(time: UInt64, bytes: [UInt8])], _ delivery: PacketDelivery, _ log: inout Log
  ) throws -> ReassemblyStatistics {
    var driver = try RadioLink(
      DriverResources(
        function: function, rings: DMAZone(rings), arena: arena, ringSize: 4096),
      delivery: delivery)
    var pair = driver.takeQueuePair(0)
    try driver.start()
    for packet in traffic { device.send(packet.bytes, at: packet.time) }
    var ledger = SegmentLedger(firstUnit: 0, byteCount: Self.segments * 2048)
    var posts = Burst(capacity: 64)
    var received = Burst(capacity: 128)
    var hasWork = true
    while hasWork {
      while pair.receiveRoom > 0 && ledger.hostCount > 0 {
        ledger.lend(upTo: min(64, pair.receiveRoom), into: &posts)
        try pair.postReceive(&posts)
      }
      hasWork = device.step()
      try pair.receive(into: &received)
      // A gap that closes can free more packets than a burst holds.
      if !received.isEmpty { hasWork = true }
      try note(&received, traffic, &ledger, &log)
    }
    log.hitPackets = device.hitPackets
    log.lostPDUs = device.lostPDUs
    let statistics = pair.reassemblyStatistics
    driver.stop()
    return statistics
  }

  /// Notes the packets of a burst by their first pieces, which hold all headers, and takes their segments back.
  private func note(
    _ received: inout Burst, _ traffic: [(time: UInt64, bytes: [UInt8])],
    _ ledger: inout SegmentLedger, _ log: inout Log
  ) throws {
    var isFirst = true
    for index in 0..<received.count {
      let slot = received[index]
      ledger.give(slot.segment)
      if isFirst {
        log.note(
          UnsafeRawBufferPointer(
            start: arena.address + Int(slot.position), count: Int(slot.length)),
          traffic, at: device.now)
      }
      isFirst = !slot.flags.contains(.more)
      try ledger.takeBack(slot.segment)
    }
    received.removeAll()
  }
}
