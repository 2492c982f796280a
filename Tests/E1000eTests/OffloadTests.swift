import Driver
import DriverConformance
import E1000e
import E1000eDevice
import Memory
import PCI
import Testing
import Wire

/// What an 82574L does beyond moving frames: segmentation, spreading over two queues, counters, throttling.
@Suite struct E1000eOffloadTests {
  let wire = MemoryWire()
  let device: E1000eDevice
  let bench: ModelBench

  init() {
    device = E1000eDevice(wire: wire)
    bench = ModelBench(device, wire: wire)
  }

  func makeDriver(pairs: Int = 1) throws -> E1000e {
    try E1000e(
      DriverResources(
        function: bench.function, rings: DMAZone(bench.rings), arena: bench.arena,
        queuePairs: pairs, requiresPlatformAccess: true))
  }

  func sum(_ bytes: ArraySlice<UInt8>, _ start: UInt32 = 0) -> UInt16 {
    var total = start
    for (index, byte) in bytes.enumerated() {
      total += index % 2 == 0 ? UInt32(byte) << 8 : UInt32(byte)
    }
    while total > 0xffff { total = total & 0xffff + total >> 16 }
    return UInt16(total)
  }

  /// A TCP packet as a stack leaves it to be cut: lengths of the whole, the pseudo-header's sum in the checksum's place.
  func largePacket(ipv6: Bool, payload: Int) -> [UInt8] {
    let tcpLength = 20 + payload
    var packet: [UInt8] = [2, 0, 0, 0, 0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56]
    var pseudo: [UInt8]
    if ipv6 {
      let addresses = [UInt8](repeating: 0xfd, count: 16) + [UInt8](repeating: 0xfe, count: 16)
      packet += [0x86, 0xdd, 0x60, 0, 0, 0]
      packet += [UInt8(tcpLength >> 8), UInt8(tcpLength & 0xff), 6, 64] + addresses
      pseudo = addresses + [0, 0, UInt8(tcpLength >> 8), UInt8(tcpLength & 0xff), 0, 0, 0, 6]
    } else {
      let length = tcpLength + 20
      let addresses: [UInt8] = [10, 0, 0, 2, 10, 0, 0, 1]
      packet += [8, 0, 0x45, 0, UInt8(length >> 8), UInt8(length & 0xff), 0, 9, 0, 0, 64, 6, 0, 0]
      packet += addresses
      pseudo = addresses + [0, 6, UInt8(tcpLength >> 8), UInt8(tcpLength & 0xff)]
    }
    let checksum = sum(pseudo[...])
    packet += [0, 80, 0x30, 0x39, 0, 0, 0x10, 0, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff]
    packet += [UInt8(checksum >> 8), UInt8(checksum & 0xff), 0, 0]
    return packet + (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 7) }
  }

  @Test(arguments: [false, true], [1, 2, 5])
  func aLargePacketIsCutByTheDevice(ipv6: Bool, pieces: Int) throws {
    var driver = try makeDriver()
    var pair = driver.takeQueuePair(0)
    try driver.start()
    while !driver.interface.linkIsUp {
      _ = bench.step()
      _ = try driver.handleConfigurationChange()
    }
    let payload = 10_000
    let packet = largePacket(ipv6: ipv6, payload: payload)
    let network = ipv6 ? 40 : 20
    let segment = 4000
    (bench.arena.address + segment * 1024).copyMemory(from: packet, byteCount: packet.count)
    var burst = Burst(capacity: 16)
    burst.append(
      Offload(
        segmentation: ipv6 ? .tcp6 : .tcp4, needsChecksum: true, segmentSize: 1400,
        checksumStart: UInt16(14 + network), checksumOffset: 16, tag: 7
      ).slot)
    var done = 0
    for piece in 0..<pieces {
      // The first cut falls into the headers.
      let length =
        piece == pieces - 1 ? packet.count - done : piece == 0 ? 30 : packet.count / pieces
      burst.append(
        Descriptor(
          segment: UInt32(segment), offset: UInt32(done), length: UInt32(length),
          flags: piece == pieces - 1 ? [] : .more))
      done += length
    }
    try pair.transmit(&burst)
    for _ in 0..<8 { _ = bench.step() }
    try pair.completeTransmit(into: &burst)
    let completed = (0..<burst.count).map { burst[$0].tag }
    #expect(completed == [7])
    let frames = wire.sent.map(\.frame)
    #expect(frames.count == 8)
    var bytes: [UInt8] = []
    for frame in frames {
      let transport = 14 + network
      let length = frame.count - transport
      let addresses = ipv6 ? frame[22..<54] : frame[26..<34]
      #expect(sum(frame[transport...], UInt32(sum(addresses)) + UInt32(6 + length)) == 0xffff)
      if !ipv6 { #expect(sum(frame[14..<34]) == 0xffff) }
      let sequence = Int(frame[transport + 6]) << 8 | Int(frame[transport + 7])
      #expect(sequence == 0x1000 + bytes.count)
      bytes += frame[(transport + 20)...]
    }
    #expect(bytes == Array(packet.suffix(payload)))
    // The stack's own bytes are as they were.
    let kept = UnsafeRawBufferPointer(
      start: bench.arena.address + segment * 1024, count: packet.count)
    #expect(Array(kept) == packet)
    #expect(bench.takeComplaints() == [])
    driver.stop()
  }

  /// Any place for the checksum and any length in the header: what makes no sense is refused, wherever the ring stands,
  /// and what is said beforehand is what is done.
  @Test func segmentationThatMakesNoSenseIsRefused() throws {
    var driver = try makeDriver()
    var pair = driver.takeQueuePair(0)
    try driver.start()
    let segment = 4000
    let length = 1200
    let packet = bench.arena.address + segment * 1024
    var burst = Burst(capacity: 16)
    var (admitted, refused) = (0, 0)
    for start in stride(from: 0, through: 300, by: 1) {
      for (offset, tcpHeader) in [(16, 0x50), (16, 0), (16, 0xf0), (0xffff, 0x50), (200, 0xf0)] {
        for at in 0..<length {
          packet.storeBytes(of: UInt8(tcpHeader), toByteOffset: at, as: UInt8.self)
        }
        burst.append(
          Offload(
            segmentation: .tcp4, needsChecksum: true, segmentSize: 1400,
            checksumStart: UInt16(start), checksumOffset: UInt16(offset), tag: 7
          ).slot)
        burst.append(
          Descriptor(segment: UInt32(segment), offset: 0, length: UInt32(length), flags: []))
        let makesSense =
          start >= 34 && start <= 220 && offset == 16 && tcpHeader != 0
          && start + tcpHeader >> 4 * 4 <= 240
        var places = 0
        let admission = pair.admission(of: burst, from: 0, through: 1, behind: &places)
        #expect(admission == (makesSense ? .admitted : .refused), "\(start) \(offset) \(tcpHeader)")
        let errors = pair.statistics.sendErrors
        try pair.transmit(&burst)
        #expect(burst.count == 0)
        #expect(pair.statistics.sendErrors == errors + (makesSense ? 0 : 1))
        for _ in 0..<8 { _ = bench.step() }
        try pair.completeTransmit(into: &burst)
        #expect(burst.count == 1)
        burst.removeAll()
        if makesSense { admitted += 1 } else { refused += 1 }
      }
    }
    #expect(admitted > 300 && refused > 1000)
    driver.stop()
  }

  @Test func flowsAreSpreadOverTwoQueuesAndStayWhereTheyAre() throws {
    var driver = try makeDriver(pairs: 2)
    #expect(driver.interface.queuePairs == 2)
    var first = driver.takeQueuePair(0)
    var second = driver.takeQueuePair(1)
    try driver.start()
    while !driver.interface.linkIsUp {
      _ = bench.step()
      _ = try driver.handleConfigurationChange()
    }
    var ledger = SegmentLedger(firstUnit: 0, byteCount: 512 << 10, isColoured: false)
    var posts = Burst(capacity: 128)
    ledger.lend(upTo: 128, into: &posts)
    try first.postReceive(&posts)
    ledger.lend(upTo: 128, into: &posts)
    try second.postReceive(&posts)
    func frame(flow: Int, number: Int) -> [UInt8] {
      var frame: [UInt8] = driver.interface.macAddress.array + [2, 0, 0, 0, 0, 1, 8, 0]
      frame += [0x45, 0, 0, 50, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
      // The hash is linear: ports of one bit each are independent.
      let port = UInt16(1) << UInt16(flow)
      frame += [UInt8(port >> 8), UInt8(port & 0xff), 0, 80] + [UInt8](repeating: 0, count: 26)
      frame[54] = UInt8(flow)
      frame[55] = UInt8(number)
      return frame
    }
    for number in 0..<6 {
      for flow in 0..<16 { wire.arriving.append(frame(flow: flow, number: number)) }
    }
    for _ in 0..<40 { _ = bench.step() }
    var received = Burst(capacity: 256)
    var queueOfFlow: [UInt8: Set<Int>] = [:]
    var orders: [UInt8: [UInt8]] = [:]
    for queue in 0..<2 {
      received.removeAll()
      if queue == 0 {
        try first.receive(into: &received)
      } else {
        try second.receive(into: &received)
      }
      for index in 0..<received.count {
        let at = bench.arena.address + Int(received[index].position)
        let flow = at.load(fromByteOffset: 54, as: UInt8.self)
        queueOfFlow[flow, default: []].insert(queue)
        orders[flow, default: []].append(at.load(fromByteOffset: 55, as: UInt8.self))
      }
    }
    #expect(queueOfFlow.count == 16)
    #expect(queueOfFlow.values.allSatisfy { $0.count == 1 })
    // One chance in 32768 that a random key puts all on one queue.
    #expect(Set(queueOfFlow.values.map { $0.first! }).count == 2)
    #expect(orders.values.allSatisfy { $0 == [0, 1, 2, 3, 4, 5] })
    #expect(bench.takeComplaints() == [])
    driver.stop()
  }

  @Test func countersOfTheDeviceAreShown() throws {
    var driver = try makeDriver()
    var pair = driver.takeQueuePair(0)
    try driver.start()
    while !driver.interface.linkIsUp {
      _ = bench.step()
      _ = try driver.handleConfigurationChange()
    }
    var ledger = SegmentLedger(firstUnit: 0, byteCount: 64 << 10, isColoured: false)
    var burst = Burst(capacity: 128)
    ledger.lend(upTo: 16, into: &burst)
    try pair.postReceive(&burst)
    let own = driver.interface.macAddress.array
    device.damage(nextFrames: 2)
    wire.arriving = (0..<5).map { TestFrame.make($0, byteCount: 64, to: own) }
    for _ in 0..<8 { _ = bench.step() }
    try pair.receive(into: &burst)
    let count = burst.count
    #expect(count == 3)
    let values = driver.readDeviceStatistics()
    let named = Dictionary(uniqueKeysWithValues: zip(E1000e.deviceStatistics, values))
    #expect(named["rx_crc_errors"] == 2)
    #expect(named["rx_good_packets"] == 3)
    // They clear when they are read; the driver's sums do not.
    #expect(driver.readDeviceStatistics() == values)
    try driver.setReceiveCoalescing(packets: 0, microseconds: 100)
    #expect(throws: DriverError.self) {
      try driver.setReceiveCoalescing(packets: 8, microseconds: 100)
    }
    driver.stop()
  }
}
