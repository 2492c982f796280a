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

/// A driver on the strict model, in one process: memory, device, wire and driver, moved step by step.
final class Bench {
  let wire = MemoryWire()
  let device: VirtioNetDevice
  let function: InProcessFunction
  private let memory: DriverMemory

  init(_ options: VirtioNetDevice.Options = .init(), carriesOffloads: Bool = false) throws {
    wire.carriesOffloads = carriesOffloads
    device = VirtioNetDevice(wire: wire, options: options)
    function = InProcessFunction(device)
    memory = try DriverMemory(mappedIn: device.iommu, arenaByteCount: 1 << 20)
  }

  var rings: DMARange { memory.rings }
  var arena: DMARange { memory.arena }

  func resources(pairs: Int = 1, ringSize: Int = 256) -> DriverResources {
    DriverResources(
      function: function,
      rings: DMAZone(rings),
      arena: arena,
      queuePairs: pairs, ringSize: ringSize)
  }
}

func frame(_ number: Int, byteCount: Int = 64) -> [UInt8] {
  [0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 8, 0]
    + (14..<byteCount).map { UInt8(truncatingIfNeeded: $0 + number) }
}

@Test func packetsGoBothWaysWithoutAViolation() throws {
  let bench = try Bench()
  var driver = try VirtioNet(bench.resources())
  var pair = driver.takeQueuePair(0)
  try driver.start()
  let interface = driver.interface
  #expect(interface.macAddress.description == "52:54:00:12:34:56")
  var ledger = SegmentLedger(firstUnit: 0, byteCount: 512 << 10)
  var posts = Burst(capacity: 64)
  var received = Burst(capacity: 128)
  let count = 3000
  var seen = 0
  for number in 0..<count {
    ledger.lend(upTo: min(64, pair.receiveRoom), into: &posts)
    try pair.postReceive(&posts)
    let left = posts.count
    #expect(left == 0)
    bench.wire.arriving.append(frame(number))
    _ = bench.device.step()
    try pair.receive(into: &received)
    for index in 0..<received.count {
      let slot = received[index]
      let bytes = UnsafeRawBufferPointer(
        start: bench.arena.address + Int(slot.position), count: Int(slot.length))
      #expect(Array(bytes) == frame(seen))
      seen += 1
      ledger.give(slot.segment)
      try ledger.takeBack(slot.segment)
    }
    received.removeAll()
  }
  #expect(seen == count)
  let statistics = pair.statistics
  #expect(statistics.receivedPackets == UInt64(count))

  var sending = Burst(capacity: 64)
  var completed = Burst(capacity: 64)
  var done: [UInt16] = []
  for number in 0..<count {
    let unit = 512 + number % 256
    (bench.arena.address + unit * 1024).copyMemory(from: frame(number), byteCount: 64)
    // Every third packet in three pieces.
    if number % 3 == 0 {
      for (index, length) in [20, 30, 14].enumerated() {
        sending.append(
          Descriptor(
            segment: UInt32(unit), offset: [0, 20, 50][index], length: UInt32(length),
            flags: index < 2 ? .more : [], tag: UInt16(number)))
      }
    } else {
      sending.append(Descriptor(segment: UInt32(unit), length: 64, tag: UInt16(number)))
    }
    try pair.transmit(&sending)
    let left = sending.count
    #expect(left == 0)
    _ = bench.device.step()
    try pair.completeTransmit(into: &completed)
    for index in 0..<completed.count { done.append(completed[index].tag) }
    completed.removeAll()
  }
  #expect(done == (0..<count).map { UInt16($0) })
  #expect(bench.wire.sent.map(\.frame) == (0..<count).map { frame($0) })
  #expect(bench.device.violations.first == [])
  #expect(bench.device.iommu.faults == [])
  driver.stop()
  #expect(bench.device.status == [])
}
