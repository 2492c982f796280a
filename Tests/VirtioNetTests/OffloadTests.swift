import Driver
import EmulatedPCI
import Glibc
import Memory
import PCI
import Testing
import Virtio
import VirtioNetDevice
import Wire

@testable import VirtioNet

@Suite struct VirtioNetFeatureTests {
  /// Whatever a device leaves out, the driver brings it up without a violation, and packets go both ways.
  @Test(
    arguments: [
      [], [.eventIndex], [.indirectDescriptors], [.mergeableBuffers], [.checksum], [.guestChecksum],
      [.controlQueue], [.status], [.mtu], [.macAddress], [.accessPlatform],
      [.eventIndex, .indirectDescriptors, .mergeableBuffers, .controlQueue, .checksum, .status],
    ] as [[VirtioFeatures]],
    [[], .inOrder, .packedRing, [.packedRing, .inOrder]] as [VirtioFeatures])
  func anyChoiceOfFeaturesWorks(withheld: [VirtioFeatures], additional: VirtioFeatures) throws {
    var options = VirtioNetDevice.Options()
    options.additional = additional
    options.withheld = withheld.reduce([]) { $0.union($1) }
    let bench = try Bench(options)
    var driver = try VirtioNet(bench.resources())
    var pair = driver.takeQueuePair(0)
    try driver.start()
    var ledger = SegmentLedger(firstUnit: 0, byteCount: 512 << 10)
    var posts = Burst(capacity: 64)
    ledger.lend(upTo: 64, into: &posts)
    try pair.postReceive(&posts)
    bench.wire.arriving = (0..<10).map { frame($0, byteCount: 60 + 100 * $0) }
    var sending = Burst(capacity: 64)
    for number in 0..<10 {
      (bench.arena.address + (600 + number) * 1024).copyMemory(from: frame(number), byteCount: 64)
      sending.append(
        Descriptor(segment: UInt32(600 + number), length: 30, flags: .more, tag: UInt16(number)))
      sending.append(Descriptor(segment: UInt32(600 + number), offset: 30, length: 34))
    }
    try pair.transmit(&sending)
    while bench.device.step() {}
    var received = Burst(capacity: 128)
    try pair.receive(into: &received)
    let count = received.count
    #expect(count == 10)
    let lengths = (0..<count).map { received[$0].length }
    #expect(lengths == (0..<10).map { UInt32(60 + 100 * $0) })
    #expect(bench.wire.sent.map(\.frame) == (0..<10).map { frame($0) })
    #expect(bench.device.violations.first == [])
    #expect(bench.device.iommu.faults == [])
    driver.stop()
  }

  @Test func aDeviceThatWouldBypassTheIOMMUIsRefused() throws {
    var options = VirtioNetDevice.Options()
    options.withheld = .accessPlatform
    let bench = try Bench(options)
    var refused = false
    do {
      _ = try VirtioNet(
        DriverResources(
          function: bench.function,
          rings: DMAZone(bench.rings), arena: bench.arena,
          requiresPlatformAccess: true))
    } catch { refused = error.description.contains("iommu_platform") }
    #expect(refused)
    #expect(bench.device.status == [])
  }

  @Test func checksumsAreAskedForAndFinishedByTheDevice() throws {
    let bench = try Bench()
    var driver = try VirtioNet(bench.resources())
    var pair = driver.takeQueuePair(0)
    try driver.start()
    // 14 bytes of Ethernet, then 40 bytes to be summed with the field at 10.
    var bytes = frame(0, byteCount: 54)
    bytes[24] = 0
    bytes[25] = 0
    (bench.arena.address + 600 * 1024).copyMemory(from: bytes, byteCount: 54)
    var sending = Burst(capacity: 8)
    sending.append(Offload(needsChecksum: true, checksumStart: 14, checksumOffset: 10, tag: 5).slot)
    sending.append(Descriptor(segment: 600, length: 54))
    // And one whose checksum lies behind its end: refused by the driver, completed, counted.
    sending.append(Offload(needsChecksum: true, checksumStart: 50, checksumOffset: 3, tag: 6).slot)
    sending.append(Descriptor(segment: 600, length: 54))
    try pair.transmit(&sending)
    while bench.device.step() {}
    var done = Burst(capacity: 8)
    try pair.completeTransmit(into: &done)
    let tags = (0..<done.count).map { done[$0].tag }
    #expect(Set(tags) == [5, 6])
    let statistics = pair.statistics
    #expect(statistics.sentPackets == 1 && statistics.sendErrors == 1)
    let sent = try #require(bench.wire.sent.first?.frame)
    var sum: UInt32 = 0
    for at in stride(from: 14, to: 54, by: 2) {
      sum += UInt32(sent[at]) << 8 | UInt32(sent[at + 1])
    }
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    #expect(sum == 0xffff)
    #expect(bench.device.violations.first == [])
    driver.stop()
  }

  @Test func commandsReachTheDevice() throws {
    let bench = try Bench()
    var driver = try VirtioNet(bench.resources())
    _ = driver.takeQueuePair(0)
    try driver.start()
    // The device answers from another thread: the driver waits for it.
    let runner = Stepper(bench.device)
    runner.start()
    try driver.setPromiscuous(true)
    try driver.setFilter(
      unicast: [], multicast: [MACAddress((0x33, 0x33, 0, 0, 0, 1))])
    try driver.setReceiveCoalescing(packets: 16, microseconds: 50)
    runner.stop()
    #expect(bench.device.counters.commands == 4)
    #expect(bench.device.violations.first == [])
    driver.stop()
  }

  @Test func linkAndFailureAreNoticed() throws {
    let bench = try Bench()
    var driver = try VirtioNet(bench.resources())
    _ = driver.takeQueuePair(0)
    try driver.start()
    bench.device.setLink(up: false)
    let changed = try driver.handleConfigurationChange()
    let isUp = driver.interface.linkIsUp
    #expect(changed && !isUp)
    bench.device.fail()
    var seen: DriverError?
    do throws(DriverError) { _ = try driver.handleConfigurationChange() } catch { seen = error }
    #expect(seen == .deviceNeedsReset)
    driver.stop()
  }

  @Test func aThousandStartsAndStopsLeaveNothing() throws {
    let bench = try Bench()
    for _ in 0..<1000 {
      var driver = try VirtioNet(bench.resources(ringSize: 16))
      var pair = driver.takeQueuePair(0)
      try driver.start()
      var ledger = SegmentLedger(firstUnit: 0, byteCount: 64 << 10)
      var posts = Burst(capacity: 16)
      ledger.lend(upTo: 16, into: &posts)
      try pair.postReceive(&posts)
      driver.stop()
      var segments = Burst(capacity: 64)
      var packets = Burst(capacity: 64)
      pair.takeBack(segments: &segments, packets: &packets)
      let back = segments.count
      #expect(back == 16)
    }
    #expect(bench.device.violations.first == [])
  }

  /// A device that names a buffer it does not hold breaks the ring; a reset of that ring alone mends it.
  @Test func aBrokenRingIsResetByItself() throws {
    let bench = try Bench()
    var driver = try VirtioNet(bench.resources(ringSize: 64))
    var pair = driver.takeQueuePair(0)
    try driver.start()
    var ledger = SegmentLedger(firstUnit: 0, byteCount: 512 << 10)
    var posts = Burst(capacity: 64)
    ledger.lend(upTo: 64, into: &posts)
    try pair.postReceive(&posts)
    // The used ring of the first queue: index 1, element (77, 100).
    let used = bench.rings.address + 64 * 16 + 256
    used.storeBytes(of: 77, toByteOffset: 4, as: UInt32.self)
    used.storeBytes(of: 1, toByteOffset: 2, as: UInt16.self)
    var received = Burst(capacity: 128)
    var seen: DriverError?
    do throws(DriverError) { try pair.receive(into: &received) } catch { seen = error }
    #expect(seen == .ring(queue: 0, .idOutOfRange(id: 77, size: 64)))
    var back = Burst(capacity: 64)
    try pair.resetReceiveRing(into: &back)
    let count = back.count
    #expect(count == 64)
    for index in 0..<count { ledger.reclaim(back[index].segment) }
    ledger.lend(upTo: 64, into: &posts)
    try pair.postReceive(&posts)
    bench.wire.arriving = [frame(1)]
    while bench.device.step() {}
    try pair.receive(into: &received)
    let packets = received.count
    #expect(packets == 1)
    #expect(bench.device.violations.first == [])
    driver.stop()
  }

  @Test func packetsOverSeveralBuffersStayWhole() throws {
    var options = VirtioNetDevice.Options()
    options.mtu = 9000
    let bench = try Bench(options)
    var driver = try VirtioNet(bench.resources())
    var pair = driver.takeQueuePair(0)
    try driver.start()
    var ledger = SegmentLedger(firstUnit: 0, byteCount: 512 << 10)
    var posts = Burst(capacity: 64)
    ledger.lend(upTo: 64, into: &posts)
    try pair.postReceive(&posts)
    let large = frame(3, byteCount: 9014)
    bench.wire.arriving = [large]
    while bench.device.step() {}
    var received = Burst(capacity: 128)
    try pair.receive(into: &received)
    var bytes: [UInt8] = []
    let count = received.count
    for index in 0..<count {
      let slot = received[index]
      bytes += UnsafeRawBufferPointer(
        start: bench.arena.address + Int(slot.position), count: Int(slot.length))
      #expect(slot.flags.contains(.more) == (index < count - 1))
    }
    #expect(count > 4 && bytes == large)
    #expect(bench.device.violations.first == [])
    driver.stop()
  }
}

/// Steps a model from another thread, while the driver only waits.
final class Stepper: @unchecked Sendable {
  private let device: VirtioNetDevice
  private var thread = pthread_t()
  private let running = UnsafeMutablePointer<Bool>.allocate(capacity: 1)

  init(_ device: VirtioNetDevice) { self.device = device }

  func start() {
    running.initialize(to: true)
    pthread_create(
      &thread, nil,
      { argument in
        let stepper = Unmanaged<Stepper>.fromOpaque(argument!).takeUnretainedValue()
        while stepper.running.pointee {
          _ = stepper.device.step()
          usleep(50)
        }
        return nil
      }, Unmanaged.passUnretained(self).toOpaque())
  }

  func stop() {
    running.pointee = false
    pthread_join(thread, nil)
  }
}
