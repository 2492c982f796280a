import Driver
import EmulatedPCI
import Memory
import PCI
import RadioLink
import RadioLinkDevice
import Wire

/// A driver on the strict model, in one process: memory, device, wire and driver, moved step by step.
final class Bench {
  let wire = MemoryWire()
  let device: RadioLinkDevice
  let function: InProcessFunction
  private let memory: DriverMemory
  /// The arena's receive part; what is sent lies behind it.
  static let receiveBytes = 12 << 20

  init(_ options: RadioLinkOptions = .init()) throws {
    device = RadioLinkDevice(wire: wire, options: options)
    function = InProcessFunction(device)
    memory = try DriverMemory(mappedIn: device.iommu, arenaByteCount: 16 << 20)
  }

  var rings: DMARange { memory.rings }
  var arena: DMARange { memory.arena }

  func resources(ringSize: Int = 1024, interrupts: InterruptPlan = .none) -> DriverResources {
    DriverResources(
      function: function,
      rings: DMAZone(rings),
      arena: arena,
      ringSize: ringSize, interrupts: interrupts)
  }

  func bytes(of slot: Descriptor) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: arena.address + Int(slot.position), count: Int(slot.length))
  }
}

/// A UDP packet of a flow, which carries its number in the run and in its flow.
func packet(flow: Int, number: Int, inFlow: Int, byteCount: Int) -> [UInt8] {
  precondition(byteCount >= 50)
  var bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: byteCount)
  bytes.replaceSubrange(0..<14, with: [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0])
  let length = byteCount - 14
  bytes.replaceSubrange(
    14..<42,
    with: [
      0x45, 0, UInt8(length >> 8), UInt8(length & 0xff), 0, 0, 0, 0, 64, 17, 0, 0,
      10, 0, 0, 1, 10, 0, 0, 2,
      UInt8(flow >> 8), UInt8(flow & 0xff), 0, 53,
      UInt8((length - 20) >> 8), UInt8((length - 20) & 0xff), 0, 0,
    ])
  for (offset, value) in [(42, number), (46, inFlow)] {
    for index in 0..<4 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
  }
  return bytes
}

/// A packet that came up, and when.
struct Arrival {
  var bytes: [UInt8]
  var time: UInt64
  var number: Int { word(42) }
  var inFlow: Int { word(46) }
  var flow: Int { Int(bytes[34]) << 8 | Int(bytes[35]) }
  private func word(_ offset: Int) -> Int {
    (0..<4).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) }
  }
}

/// Packets of different sizes of 16 flows, one every `gap` nanoseconds.
func traffic(count: Int, gap: UInt64 = 60_000) -> [(time: UInt64, bytes: [UInt8])] {
  (0..<count).map { number in
    let sizes = [60, 1514, 590, 90, 1514, 1000, 54, 300]
    return (
      UInt64(number) * gap,
      packet(
        flow: number % 16, number: number, inFlow: number / 16,
        byteCount: sizes[number * 7 / 3 % sizes.count])
    )
  }
}

struct Outcome {
  var arrivals: [Arrival] = []
  var reassembly = ReassemblyStatistics()
  var statistics = QueueStatistics()
  var segmentsBack = 0
  var mostPieces = 0
  /// What the link did, before the reset.
  var lostPDUs: UInt64 = 0
  var pdusWithoutBuffer: UInt64 = 0
  var hitPackets: Set<Int> = []
}

/// Sends packets from the far end to a driver, to the end. Every segment goes through the ledger, as in the host.
func run(
  _ bench: Bench, _ delivery: PacketDelivery, _ packets: [(time: UInt64, bytes: [UInt8])],
  ringSize: Int = 1024, segments: Int = 4096
) throws -> Outcome {
  var driver = try RadioLink(bench.resources(ringSize: ringSize), delivery: delivery)
  var pair = driver.takeQueuePair(0)
  try driver.start()
  for packet in packets { bench.device.send(packet.bytes, at: packet.time) }
  var ledger = SegmentLedger(firstUnit: 0, byteCount: segments * 2048)
  var posts = Burst(capacity: 64)
  var received = Burst(capacity: 128)
  var outcome = Outcome()
  var hasWork = true
  while hasWork {
    while pair.receiveRoom > 0 && ledger.hostCount > 0 {
      ledger.lend(upTo: min(64, pair.receiveRoom), into: &posts)
      try pair.postReceive(&posts)
      if !posts.isEmpty { break }
    }
    hasWork = bench.device.step()
    try pair.receive(into: &received)
    // A gap that closes can free more packets than a burst holds.
    if !received.isEmpty { hasWork = true }
    try collect(&received, bench, &ledger, &outcome)
  }
  outcome.statistics = pair.statistics
  outcome.reassembly = pair.reassemblyStatistics
  outcome.lostPDUs = bench.device.lostPDUs
  outcome.pdusWithoutBuffer = bench.device.pdusWithoutBuffer
  outcome.hitPackets = bench.device.hitPackets
  driver.stop()
  pair.takeBack(segments: &received, packets: &posts)
  while !received.isEmpty {
    for index in 0..<received.count { ledger.reclaim(received[index].segment) }
    received.removeAll()
    pair.takeBack(segments: &received, packets: &posts)
  }
  outcome.segmentsBack = ledger.hostCount
  return outcome
}

private func collect(
  _ received: inout Burst, _ bench: Bench, _ ledger: inout SegmentLedger,
  _ outcome: inout Outcome
) throws {
  var bytes: [UInt8] = []
  var pieces = 0
  for index in 0..<received.count {
    let slot = received[index]
    ledger.give(slot.segment)
    bytes += bench.bytes(of: slot)
    pieces += 1
    if !slot.flags.contains(.more) {
      outcome.arrivals.append(Arrival(bytes: bytes, time: bench.device.now))
      outcome.mostPieces = max(outcome.mostPieces, pieces)
      bytes = []
      pieces = 0
    }
    try ledger.takeBack(slot.segment)
  }
  received.removeAll()
}
