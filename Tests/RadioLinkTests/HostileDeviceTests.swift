import Driver
import Memory
import RadioLink
import RadioLinkDevice
import Testing

/// A driver whose device writes what the test says: rings and indexes are written directly, at the places where the
/// driver has put them (RadioLink.md, section 3). The model only answers register accesses.
private struct Script: ~Copyable {
  static let size = 256
  let bench: Bench
  var driver: RadioLink
  var pair: RadioLinkQueuePair
  var ledger = SegmentLedger(firstUnit: 0, byteCount: 600 * 2048)
  var completed: UInt32 = 0
  var received = Burst(capacity: 128)

  struct Flags: OptionSet {
    var rawValue: UInt8
    static let first = Flags(rawValue: 1)
    static let last = Flags(rawValue: 2)
    static let lastInPDU = Flags(rawValue: 4)
    static let whole: Flags = [.first, .last, .lastInPDU]
  }

  private init(
    _ bench: Bench, _ driver: consuming RadioLink, _ pair: consuming RadioLinkQueuePair
  ) {
    self.bench = bench
    self.driver = driver
    self.pair = pair
  }

  static func start(_ delivery: PacketDelivery, window: UInt64 = 64) throws -> Script {
    var options = RadioLinkOptions()
    options.window = window
    let bench = try Bench(options)
    var driver = try RadioLink(bench.resources(ringSize: Self.size), delivery: delivery)
    let pair = driver.takeQueuePair(0)
    try driver.start()
    var script = Script(bench, driver, pair)
    try script.post()
    return script
  }

  mutating func post() throws {
    var posts = Burst(capacity: 64)
    while pair.receiveRoom > 0 && ledger.hostCount > 0 {
      ledger.lend(upTo: min(64, pair.receiveRoom), into: &posts)
      try pair.postReceive(&posts)
    }
  }

  /// Writes a completion; what is not said is as it should be.
  mutating func complete(
    _ sequence: Int, _ flags: Flags, length: Int = 100, number: Int = 0, offset: Int = 0,
    id: Int? = nil
  ) {
    let place = Int(completed) % Self.size
    let entry = bench.rings.address + Self.size * 16 + place * 32
    let id = UInt16(id ?? place)
    entry.storeBytes(of: id, as: UInt16.self)
    entry.storeBytes(of: UInt16(length), toByteOffset: 2, as: UInt16.self)
    entry.storeBytes(of: UInt16(sequence), toByteOffset: 4, as: UInt16.self)
    entry.storeBytes(of: UInt8(number), toByteOffset: 6, as: UInt8.self)
    entry.storeBytes(of: flags.rawValue, toByteOffset: 7, as: UInt8.self)
    entry.storeBytes(of: UInt16(offset), toByteOffset: 8, as: UInt16.self)
    completed &+= 1
    setIndex(completed)
  }

  func setIndex(_ value: UInt32) {
    (bench.rings.address + Self.size * 64).storeBytes(of: value, as: UInt32.self)
  }

  func setSentIndex(_ value: UInt32) {
    (bench.rings.address + Self.size * 64 + 64).storeBytes(of: value, as: UInt32.self)
  }

  /// - Returns: the bytes of each packet that comes up.
  mutating func receive() throws -> [Int] {
    var packets: [Int] = []
    repeat {
      received.removeAll()
      try pair.receive(into: &received)
      var bytes = 0
      for index in 0..<received.count {
        bytes += Int(received[index].length)
        ledger.give(received[index].segment)
        try ledger.takeBack(received[index].segment)
        if received[index].flags.contains(.more) { continue }
        packets.append(bytes)
        bytes = 0
      }
    } while !received.isEmpty
    return packets
  }

  /// Stops the driver; every segment must be with the host then, each once.
  mutating func end() {
    ledger.reclaimFromInstance()
    driver.stop()
    var packets = Burst(capacity: 64)
    repeat {
      received.removeAll()
      pair.takeBack(segments: &received, packets: &packets)
      for index in 0..<received.count { ledger.reclaim(received[index].segment) }
    } while !received.isEmpty
    let (host, all) = (ledger.hostCount, ledger.count)
    #expect(host == all)
  }

  /// Receives, and expects the ring to be broken for good.
  mutating func expectBroken(_ text: String) {
    for _ in 0..<2 {
      var seen = ""
      do { _ = try receive() } catch { seen = "\(error)" }
      #expect(seen.contains(text))
    }
    end()
  }
}

private let deliveries: [PacketDelivery] = [.linkOrder, .early, .earlyByFlow]

@Suite struct HostileDeviceTests {
  @Test(arguments: [1, 256, 65535])
  func anIdOutOfTurnBreaksTheRing(id: Int) throws {
    var script = try Script.start(.early)
    script.complete(0, .whole, id: id)
    script.expectBroken("completed descriptor \(id) in place of 0")
  }

  @Test(arguments: [0, 2049, 65535])
  func aLengthThatCannotBeBreaksTheRing(length: Int) throws {
    var script = try Script.start(.linkOrder)
    script.complete(0, .whole, length: length)
    script.expectBroken("\(length) bytes in a buffer of")
  }

  @Test func indexesThatJumpBreakTheRing() throws {
    for index in [257, 0x8000_0000, .max] as [UInt32] {
      var script = try Script.start(.early)
      script.setIndex(index)
      script.expectBroken("counts \(index) completions")
    }
    var script = try Script.start(.early)
    script.setSentIndex(1)
    var burst = Burst(capacity: 8)
    var seen = ""
    do { try script.pair.completeTransmit(into: &burst) } catch { seen = "\(error)" }
    #expect(seen.contains("counts 1 descriptors done after 0"))
    script.end()
  }

  @Test(arguments: deliveries)
  func aPDUCountsOnce(delivery: PacketDelivery) throws {
    var script = try Script.start(delivery)
    script.complete(0, .whole)
    script.complete(0, .whole)
    script.complete(2, .whole, length: 200)
    script.complete(2, .whole, length: 300)
    script.complete(1, .whole)
    #expect(try script.receive().sorted() == [100, 100, 200])
    // PDU 0 lies before the window by then, PDU 2 inside.
    let statistics = script.pair.reassemblyStatistics
    #expect(statistics.duplicates == 1 && statistics.outsideWindow == 1)
    #expect(script.pair.statistics.receiveErrors == 2)
    script.end()
  }

  @Test(arguments: deliveries)
  func theWindowHasAnEnd(delivery: PacketDelivery) throws {
    var script = try Script.start(delivery, window: 64)
    script.complete(63, .whole)
    script.complete(64, .whole)
    script.complete(4095, .whole)
    script.complete(4096, .whole)
    let early = delivery != .linkOrder
    #expect(try script.receive() == (early ? [100] : []))
    let statistics = script.pair.reassemblyStatistics
    #expect(statistics.outsideWindow == 2 && statistics.malformedPDUs == 1)
    #expect(statistics.heldSegments == (early ? 0 : 1))
    script.end()
  }

  /// What the segment offsets say must be what the flags say.
  @Test(arguments: deliveries, [99, 101, 0, 65535])
  func offsetsThatOverlapOrLeaveAGapCostThePacket(delivery: PacketDelivery, offset: Int) throws {
    var script = try Script.start(delivery)
    script.complete(0, [.first, .lastInPDU])
    script.complete(1, [.last], offset: offset)
    script.complete(1, [.first, .last, .lastInPDU], length: 200, number: 1)
    script.complete(2, .whole, length: 300, offset: 5)
    script.complete(3, .whole, length: 400)
    #expect(try script.receive() == [200, 400])
    #expect(script.pair.reassemblyStatistics.brokenPackets == 2)
    #expect(script.pair.reassemblyStatistics.heldBytes == 0)
    script.end()
  }

  @Test(arguments: deliveries)
  func packetsTooShortOrTooLongAreDropped(delivery: PacketDelivery) throws {
    var script = try Script.start(delivery)
    script.complete(0, .whole, length: 13)
    script.complete(1, .whole, length: 1515)
    script.complete(2, [.first, .lastInPDU], length: 1400)
    script.complete(3, [.last, .lastInPDU], length: 115, offset: 1400)
    script.complete(4, [.first, .lastInPDU], length: 1400)
    script.complete(5, [.last, .lastInPDU], length: 114, offset: 1400)
    #expect(try script.receive() == [1514])
    #expect(script.pair.reassemblyStatistics.brokenPackets == 3)
    script.end()
  }

  /// Packets that go on and were never begun, or begin and never end.
  @Test(arguments: deliveries)
  func packetsWithoutBeginningOrEndAreDropped(delivery: PacketDelivery) throws {
    var script = try Script.start(delivery)
    script.complete(0, [.last, .lastInPDU], offset: 50)
    script.complete(1, [.first, .lastInPDU])
    script.complete(2, .whole, length: 200)
    script.complete(3, [.lastInPDU], offset: 100)
    script.complete(4, .whole, length: 300)
    #expect(try script.receive() == [200, 300])
    script.end()
  }

  /// A packet that never ends is given up after as many pieces as a packet may have.
  @Test(arguments: deliveries)
  func whatIsHeldIsBounded(delivery: PacketDelivery) throws {
    var script = try Script.start(delivery)
    script.complete(0, [.first, .lastInPDU], length: 20)
    for number in 1..<1000 {
      script.complete(number, [.lastInPDU], length: 20, offset: number * 20)
      #expect(try script.receive() == [])
      try script.post()
    }
    let statistics = script.pair.reassemblyStatistics
    #expect(statistics.peakHeldSegments <= 130 && statistics.brokenPackets > 0)
    script.end()
  }

  @Test(arguments: deliveries)
  func piecesThatContradictEachOtherCostTheirPDU(delivery: PacketDelivery) throws {
    var script = try Script.start(delivery)
    // A PDU without its first piece; one that changes its number; one that has no end; a packet cut in its middle;
    // bits that mean nothing.
    script.complete(0, .whole, number: 3)
    script.complete(0, [.first, .last])
    script.complete(1, .whole, number: 1)
    for number in 0..<16 { script.complete(2, [.first, .last], number: number) }
    script.complete(3, [.first])
    script.complete(3, .whole, number: 1)
    script.complete(4, Script.Flags(rawValue: 0xff))
    for number in 0..<8 where number != 3 { script.complete(number, .whole, length: 50 + number) }
    #expect(try script.receive() == [50, 51, 52, 54, 55, 56, 57])
    #expect(script.pair.reassemblyStatistics.malformedPDUs >= 5)
    script.end()
  }

  /// While a PDU is missing, buffers are posted as long as the store has places; with the PDU, all comes up.
  @Test func theStoreIsBoundedAndTheMissingPDUGetsIn() throws {
    var script = try Script.start(.linkOrder, window: 64)
    let places = Script.size + 4 * 64
    var (sequence, packets) = (1, 0)
    while script.ledger.deviceCount - script.pair.reassemblyStatistics.heldSegments >= 32 {
      for number in 0..<16 {
        script.complete(
          sequence, number < 15 ? [.first, .last] : .whole, length: 20, number: number)
      }
      sequence += 1
      packets += 16
      #expect(try script.receive() == [])
      try script.post()
      let withDevice = script.ledger.deviceCount
      #expect(withDevice <= places)
    }
    // 600 segments were there to be posted.
    #expect(sequence < 64 && script.ledger.deviceCount == places)
    script.complete(0, .whole, length: 20)
    #expect(try script.receive().count == packets + 1)
    script.end()
  }

  /// Packets that found no room in a burst are not slept over.
  @Test func nobodySleepsOverPacketsThatAreReady() throws {
    var script = try Script.start(.linkOrder)
    for sequence in (0..<50).reversed() {
      for number in 0..<4 {
        script.complete(
          sequence, number < 3 ? [.first, .last] : .whole, length: 20, number: number)
      }
    }
    try script.pair.receive(into: &script.received)
    let first = script.received.count
    #expect(first > 0 && first < 200)
    let maySleep = script.pair.armInterrupts(transmit: false)
    #expect(!maySleep)
    for index in 0..<first { script.ledger.give(script.received[index].segment) }
    #expect(try script.receive().count == 200 - first)
    let mayNow = script.pair.armInterrupts(transmit: false)
    #expect(mayNow)
    script.end()
  }

  /// Whatever a device says, no segment is lost or handed out twice: the ledger traps on the second, and the end counts.
  @Test(arguments: deliveries, [1, 2, 3] as [UInt64])
  func nothingIsLostWhateverTheDeviceSays(delivery: PacketDelivery, seed: UInt64) throws {
    var script = try Script.start(delivery)
    var state = seed
    func random(_ below: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % below
    }
    var base = 0
    for _ in 0..<20_000 {
      // Around the window's edge, so that it moves; most flags are possible, many are wrong.
      let sequence = (base + random(12)) % 4096
      if random(3) == 0 { base = (base + 1) % 4096 }
      script.complete(
        sequence, Script.Flags(rawValue: UInt8(random(20) == 0 ? random(256) : 4 | random(4))),
        length: 1 + random(300), number: random(20) == 0 ? random(20) : 0,
        offset: random(2) == 0 ? 0 : random(400))
      _ = try script.receive()
      try script.post()
      let statistics = script.pair.reassemblyStatistics
      #expect(statistics.heldBytes >= 0 && statistics.heldSegments <= 600)
    }
    script.end()
  }
}
