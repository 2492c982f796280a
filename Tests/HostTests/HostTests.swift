import CLinux
import Channel
import Driver
import EmulatedPCI
import Glibc
import Memory
import PCI
import Testing
import Virtio
import VirtioNet
import VirtioNetDevice
import Wire

@testable import Host

/// Device, driver, packet path, channel and instance in one process, moved step by step.
final class HostBench {
  let wire = MemoryWire()
  let device: VirtioNetDevice
  let rings: UnsafeMutableRawPointer
  let arena: UnsafeMutableRawPointer
  let memory: ChannelMemory
  let bell = eventfd(0, Int32(EFD_NONBLOCK))
  static let partBytes = 1 << 20

  init() throws {
    device = VirtioNetDevice(wire: wire)
    rings = .allocate(byteCount: 1 << 20, alignment: 4096)
    arena = .allocate(byteCount: 2 * Self.partBytes, alignment: 4096)
    memory = try ChannelMemory(layout: try #require(ChannelLayout(queues: 1, slots: 256)))
    let part = UInt64(Self.partBytes)
    try device.iommu.map(
      iova: 1 << 20, byteCount: 1 << 20, address: rings, rights: [.read, .write])
    try device.iommu.map(
      iova: 1 << 24, byteCount: part, address: arena, rights: [.read, .write])
    try device.iommu.map(
      iova: 1 << 24 + part, byteCount: part, address: arena + Self.partBytes, rights: .read)
  }

  deinit {
    rings.deallocate()
    arena.deallocate()
    close(bell)
  }

  func driver() throws -> VirtioNet {
    try VirtioNet(
      DriverResources(
        function: InProcessFunction(device),
        rings: DMAZone(DMARange(address: rings, iova: 1 << 20, byteCount: 1 << 20)),
        arena: DMARange(address: arena, iova: 1 << 24, byteCount: 2 * Self.partBytes)))
  }

  func path(_ driver: inout VirtioNet) -> PacketPath<VirtioNetQueuePair> {
    PacketPath(
      queuePair: driver.takeQueuePair(0),
      channel: HostEnd(memory, queue: 0, instanceDoorbell: bell),
      ledger: SegmentLedger(firstUnit: 0, byteCount: Self.partBytes),
      transmitPart: UInt64(Self.partBytes)..<UInt64(2 * Self.partBytes))
  }

  func frame(_ number: Int) -> [UInt8] {
    [0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 8, 0]
      + (14..<200).map { UInt8(truncatingIfNeeded: $0 &* (number + 3)) }
  }
}

@Suite struct PacketPathTests {
  @Test func everyPacketArrivesInBothDirectionsAndEverySegmentComesBack() throws {
    let bench = try HostBench()
    var driver = try bench.driver()
    var path = bench.path(&driver)
    var instance = InstanceEnd(bench.memory, queue: 0, hostDoorbell: -1)
    try driver.start()
    var got = Burst(capacity: 256)
    var done = Burst(capacity: 256)
    var sending = Burst(capacity: 64)
    var received = 0
    var completed = 0
    for number in 0..<2000 {
      bench.wire.arriving.append(bench.frame(number))
      let unit = UInt32(HostBench.partBytes / 1024 + number % 512)
      (bench.arena + Int(unit) * 1024).copyMemory(from: bench.frame(number), byteCount: 200)
      sending.append(Descriptor(segment: unit, length: 200, tag: UInt16(number)))
      instance.transmit.push(&sending)
      _ = try path.turn()
      _ = bench.device.step()
      _ = try path.turn()
      try instance.receive.pop(into: &got)
      for index in 0..<got.count {
        let slot = got[index]
        let bytes = UnsafeRawBufferPointer(
          start: bench.arena + Int(slot.position), count: Int(slot.length))
        #expect(Array(bytes) == bench.frame(received))
        received += 1
      }
      instance.free.push(&got)
      try instance.completion.pop(into: &done)
      for index in 0..<done.count {
        #expect(done[index].tag == UInt16(completed))
        completed += 1
      }
      done.removeAll()
    }
    _ = try path.turn()
    #expect(received == 2000 && completed == 2000)
    #expect(bench.wire.sent.map(\.frame) == (0..<2000).map { bench.frame($0) })
    let ledger = (path.ledger.instanceCount, path.inFlight)
    #expect(ledger == (0, 0))
    driver.stop()
    path.takeBackFromDevice()
    let counts = (path.ledger.hostCount, path.ledger.deviceCount)
    #expect(counts == (512, 0))
    #expect(bench.device.violations.first == [])
    #expect(bench.device.iommu.faults.isEmpty)
  }

  /// What an instance may write is no place for what the device is told: its word for that is not taken.
  @Test func theHeaderOfAPacketOfAnInstanceIsNeverInItsOwnMemory() throws {
    let bench = try HostBench()
    var driver = try bench.driver()
    var path = bench.path(&driver)
    var instance = InstanceEnd(bench.memory, queue: 0, hostDoorbell: -1)
    try driver.start()
    let unit = UInt32(HostBench.partBytes / 1024)
    let bytes = bench.arena + Int(unit) * 1024
    bytes.initializeMemory(as: UInt8.self, repeating: 0xee, count: 64)
    (bytes + 64).copyMemory(from: bench.frame(1), byteCount: 200)
    var sending = Burst(capacity: 1)
    sending.append(
      Descriptor(
        segment: unit, offset: 64, length: 200, flags: .headroom, tag: 5))
    instance.transmit.push(&sending)
    _ = try path.turn()
    _ = bench.device.step()
    #expect(bench.wire.sent.map(\.frame) == [bench.frame(1)])
    #expect((0..<64).allSatisfy { bytes.load(fromByteOffset: $0, as: UInt8.self) == 0xee })
    #expect(bench.device.violations.first == [])
    driver.stop()
  }

  @Test func anInstanceThatDoesNotDrainLosesItsOwnPacketsOnly() throws {
    let bench = try HostBench()
    var driver = try bench.driver()
    var path = bench.path(&driver)
    try driver.start()
    _ = try path.turn()
    for number in 0..<1000 {
      bench.wire.arriving.append(bench.frame(number))
      _ = bench.device.step()
      _ = try path.turn()
    }
    // The ring has 256 slots; the rest was dropped, counted, and its segments used again.
    let counts = (path.counts.dropsRingFull, path.ledger.instanceCount)
    #expect(counts == (744, 256))
    let total = path.ledger.hostCount + path.ledger.deviceCount + path.ledger.instanceCount
    #expect(total == 512)
    driver.stop()
  }

  /// What an instance may put on its rings against the rules, and the offence that it is.
  @Test func whatAnInstanceDoesAgainstTheRulesIsNamed() throws {
    let part = UInt32(HostBench.partBytes / 1024)
    let cases: [(String, (inout InstanceEnd) -> Void)] = [
      ("transmit part", { self.send(&$0, Descriptor(segment: 0, length: 100)) }),
      (
        "transmit part",
        { self.send(&$0, Descriptor(segment: part - 1, offset: 1000, length: 100)) }
      ),
      ("transmit part", { self.send(&$0, Descriptor(segment: part, length: 0)) }),
      ("transmit part", { self.send(&$0, Descriptor(segment: 2 * part - 1, length: 1025)) }),
      ("transmit part", { self.send(&$0, Descriptor(segment: .max, offset: .max, length: .max)) }),
      ("transmit part", { self.send(&$0, Descriptor(segment: part, length: .max)) }),
      (
        "offload",
        { end in
          var burst = Burst(capacity: 2)
          burst.append(Descriptor(segment: 0, length: 7 << 16, flags: [.offload, .more]))
          burst.append(Descriptor(segment: part, length: 100))
          end.transmit.push(&burst)
        }
      ),
      ("not the instance's", { self.giveBack(&$0, 0) }),
      ("no segment", { self.giveBack(&$0, 1) }),
      ("no segment", { self.giveBack(&$0, part) }),
      ("no segment", { self.giveBack(&$0, .max) }),
    ]
    for (text, act) in cases {
      let bench = try HostBench()
      var driver = try bench.driver()
      var path = bench.path(&driver)
      var instance = InstanceEnd(bench.memory, queue: 0, hostDoorbell: -1)
      try driver.start()
      act(&instance)
      var offence = ""
      do throws(HostError) { _ = try path.turn() } catch { offence = error.description }
      #expect(offence.contains(text), "\(text): \(offence)")
      let total = path.ledger.hostCount + path.ledger.deviceCount + path.ledger.instanceCount
      #expect(total == 512)
      driver.stop()
      #expect(bench.wire.sent.isEmpty)
    }
  }

  private func send(_ end: inout InstanceEnd, _ slot: Descriptor) {
    var burst = Burst(capacity: 1)
    burst.append(slot)
    end.transmit.push(&burst)
  }

  private func giveBack(_ end: inout InstanceEnd, _ segment: UInt32) {
    var burst = Burst(capacity: 1)
    burst.append(Descriptor(segment: segment))
    end.free.push(&burst)
  }
}
