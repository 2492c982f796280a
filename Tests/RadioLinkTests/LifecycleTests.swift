import CLinux
import Driver
import Glibc
import Memory
import RadioLink
import RadioLinkDevice
import Testing

@Suite struct LifecycleTests {
  @Test(arguments: [0, 0.1])
  func packetsGoBothWaysWithoutAViolation(loss: Double) throws {
    var options = RadioLinkOptions()
    options.loss = loss
    let bench = try Bench(options)
    var driver = try RadioLink(bench.resources(ringSize: 64))
    var pair = driver.takeQueuePair(0)
    #expect(driver.interface.macAddress.description == "52:54:00:12:34:57")
    #expect(driver.interface.mtu == 1500 && driver.interface.linkIsUp)
    try driver.start()
    var ledger = SegmentLedger(firstUnit: 0, byteCount: 512 * 2048)
    var posts = Burst(capacity: 64)
    var received = Burst(capacity: 128)
    var sending = Burst(capacity: 64)
    var completed = Burst(capacity: 64)
    let packets = (0..<1000).map { number in
      packet(flow: number % 4, number: number, inFlow: number / 4, byteCount: 50 + number)
    }
    var (sent, tags, bytes) = (0, [UInt16](), 0)
    while tags.count < 1000 || bench.wire.sent.count < 1000 || bytes < packets.joined().count {
      ledger.lend(upTo: min(64, pair.receiveRoom), into: &posts)
      try pair.postReceive(&posts)
      if sent < 1000 && sending.isEmpty {
        let start = Bench.receiveBytes + sent * 2048
        (bench.arena.address + start).copyMemory(
          from: packets[sent], byteCount: packets[sent].count)
        // Every third packet in three pieces.
        let cuts = sent % 3 == 0 ? [20, 30, packets[sent].count - 50] : [packets[sent].count]
        var offset = 0
        for (index, length) in cuts.enumerated() where length > 0 {
          sending.append(
            Descriptor(
              segment: UInt32(start / 1024), offset: UInt32(offset), length: UInt32(length),
              flags: offset + length < packets[sent].count ? .more : [],
              tag: index == 0 ? UInt16(sent) : 0))
          offset += length
        }
        bench.wire.arriving.append(packets[sent])
        sent += 1
      }
      try pair.transmit(&sending)
      _ = bench.device.step()
      try pair.completeTransmit(into: &completed)
      for index in 0..<completed.count { tags.append(completed[index].tag) }
      completed.removeAll()
      try pair.receive(into: &received)
      for index in 0..<received.count {
        bytes += Int(received[index].length)
        ledger.give(received[index].segment)
        try ledger.takeBack(received[index].segment)
      }
      received.removeAll()
    }
    let isSame = bench.wire.sent.map(\.frame) == packets
    #expect(isSame)
    let tagsAreInOrder = tags == (0..<1000).map { UInt16($0) }
    #expect(tagsAreInOrder)
    #expect((bench.device.lostSentPDUs > 0) == (loss > 0))
    #expect(bench.device.violations.first == [])
    #expect(bench.device.iommu.faults == [])
    let statistics = pair.statistics
    #expect(statistics.sentPackets == 1000 && statistics.receivedPackets == 1000)
    #expect(statistics.sendErrors == 0 && statistics.receiveErrors == 0)
    driver.stop()
  }

  /// The device has no offloads, and a packet has a length that can be.
  @Test func whatCannotBeSentIsCompletedAndCounted() throws {
    let bench = try Bench()
    var driver = try RadioLink(bench.resources())
    var pair = driver.takeQueuePair(0)
    try driver.start()
    var sending = Burst(capacity: 16)
    sending.append(Offload(needsChecksum: true, checksumStart: 14, checksumOffset: 2, tag: 1).slot)
    sending.append(Descriptor(segment: 12 << 10, length: 100))
    sending.append(Descriptor(segment: 12 << 10, length: 13, tag: 2))
    sending.append(Descriptor(segment: 12 << 10, length: 1515, tag: 3))
    sending.append(Offload(tag: 4).slot)
    sending.append(Descriptor(segment: 12 << 10, length: 1514))
    try pair.transmit(&sending)
    while bench.device.step() {}
    var completed = Burst(capacity: 16)
    try pair.completeTransmit(into: &completed)
    let tags = (0..<completed.count).map { completed[$0].tag }
    #expect(Set(tags) == [1, 2, 3, 4] && bench.wire.sent.count == 1)
    #expect(pair.statistics.sendErrors == 3)
    #expect(bench.device.violations.first == [])
    driver.stop()
  }

  @Test func aThousandStartsAndStopsLeaveNothing() throws {
    var options = RadioLinkOptions()
    options.loss = 0.3
    options.window = 16
    let bench = try Bench(options)
    for round in 0..<1000 {
      var driver = try RadioLink(
        bench.resources(ringSize: 32), delivery: round % 2 == 0 ? .early : .linkOrder)
      var pair = driver.takeQueuePair(0)
      try driver.start()
      var ledger = SegmentLedger(firstUnit: 0, byteCount: 64 * 2048)
      var burst = Burst(capacity: 128)
      var packets = Burst(capacity: 64)
      ledger.lend(upTo: 32, into: &burst)
      try pair.postReceive(&burst)
      for packet in traffic(count: 8, gap: 1000) {
        bench.device.send(packet.bytes, at: packet.time)
      }
      for _ in 0..<round % 20 { _ = bench.device.step() }
      try pair.receive(into: &burst)
      for index in 0..<burst.count {
        ledger.give(burst[index].segment)
        try ledger.takeBack(burst[index].segment)
      }
      burst.removeAll()
      driver.stop()
      driver.stop()
      pair.takeBack(segments: &burst, packets: &packets)
      for index in 0..<burst.count { ledger.reclaim(burst[index].segment) }
      let back = ledger.hostCount
      #expect(back == 64)
    }
    #expect(bench.device.violations.first == [])
    #expect(bench.device.iommu.faults == [])
    #expect(!bench.device.isRunning)
  }

  @Test func interruptsComeOnceForEachTimeThatTheyAreArmed() throws {
    let bench = try Bench()
    let (link, queue) = (eventfd(0, Int32(EFD_NONBLOCK)), eventfd(0, Int32(EFD_NONBLOCK)))
    defer {
      close(link)
      close(queue)
    }
    func signals(_ descriptor: Int32) -> UInt64 {
      var value: UInt64 = 0
      return read(descriptor, &value, 8) == 8 ? value : 0
    }
    var driver = try RadioLink(
      bench.resources(interrupts: InterruptPlan(configuration: link, queues: [queue])))
    var pair = driver.takeQueuePair(0)
    try driver.start()
    var ledger = SegmentLedger(firstUnit: 0, byteCount: 64 * 2048)
    var burst = Burst(capacity: 128)
    ledger.lend(upTo: 64, into: &burst)
    try pair.postReceive(&burst)
    let isQuiet = pair.armInterrupts(transmit: false)
    #expect(isQuiet)
    for packet in traffic(count: 5) { bench.device.send(packet.bytes, at: packet.time) }
    while bench.device.step() {}
    #expect(signals(queue) == 1)
    let mayNotSleep = pair.armInterrupts(transmit: true)
    #expect(!mayNotSleep)
    pair.disarmInterrupts()
    try pair.receive(into: &burst)
    let mayNow = pair.armInterrupts(transmit: true)
    #expect(mayNow)
    bench.device.setLink(up: false)
    #expect(signals(link) == 1)
    let changed = try driver.handleConfigurationChange()
    let isUp = driver.interface.linkIsUp
    #expect(changed && !isUp)
    bench.device.fail(.access)
    var seen: DriverError?
    do throws(DriverError) { _ = try driver.handleConfigurationChange() } catch { seen = error }
    #expect(seen == .deviceNeedsReset)
    driver.stop()
    #expect(bench.device.violations.first == [])
  }
}
