import CLinux
import Driver
import DriverConformance
import E1000e
import E1000eDevice
import EmulatedPCI
import Glibc
import Memory
import PCI
import Testing
import Trace
import VirtioNet
import VirtioNetDevice
import Wire

/// A driver and a bench for its model.
protocol RecordedDriver: ~Copyable {
  associatedtype Driver: NetworkDriver & ~Copyable
  static func makeBench() -> ModelBench
}

enum RecordedVirtioNet: RecordedDriver {
  typealias Driver = VirtioNet
  static func makeBench() -> ModelBench {
    let wire = MemoryWire()
    return ModelBench(VirtioNetDevice(wire: wire), wire: wire)
  }
}

enum RecordedE1000e: RecordedDriver {
  typealias Driver = E1000e
  static func makeBench() -> ModelBench {
    let wire = MemoryWire()
    return ModelBench(E1000eDevice(wire: wire), wire: wire)
  }
}

/// What a host does with a NIC, recorded on the driver's model: packets in both directions with their interrupts, the
/// link going down and up, filters, the end.
final class RecordedRun<R: RecordedDriver> {
  private(set) var text = ""
  private let bench = R.makeBench()
  private let configurationInterrupt = eventfd(0, Int32(EFD_NONBLOCK))
  private let queueInterrupt = eventfd(0, Int32(EFD_NONBLOCK))
  /// How the device misbehaves in the third round.
  private let malformation: String?
  static var rounds: Int { 6 }

  init(malformation: String? = nil) throws {
    self.malformation = malformation
    let recording = RecordingFunction(
      bench.function,
      memory: [
        TracedMemory("rings", bench.rings), TracedMemory("arena", bench.arena, watch: .parts),
      ]
    ) { [unowned self] in text += $0 }
    try run(recording)
    recording.finish()
    if malformation == nil { #expect(bench.takeComplaints() == []) }
  }

  deinit {
    close(configurationInterrupt)
    close(queueInterrupt)
  }

  private func run(_ function: RecordingFunction) throws {
    var driver = try TracedDriver<R.Driver>(
      DriverResources(
        function: function, rings: DMAZone(bench.rings), arena: bench.arena, ringSize: 64,
        interrupts: InterruptPlan(configuration: configurationInterrupt, queues: [queueInterrupt]),
        requiresPlatformAccess: true))
    var pair = driver.takeQueuePair(0)
    try driver.start()
    settle()
    _ = try driver.handleConfigurationChange()
    try driver.setPromiscuous(true)
    try driver.setFilter(
      unicast: [],
      multicast: [MACAddress((1, 0, 0x5e, 0, 0, 1)), MACAddress((1, 0, 0x5e, 0, 0, 2))])
    var burst = Burst(capacity: 128)
    for number in 0..<32 { burst.append(Descriptor(segment: UInt32(2 * number), length: 2048)) }
    try pair.postReceive(&burst)
    do throws(DriverError) {
      for round in 0..<Self.rounds {
        let isQuiet = pair.armInterrupts(transmit: true)
        #expect(isQuiet || malformation != nil)
        if round == 2, let malformation { bench.networkModel.malform(malformation) }
        let frames = (0...round).map {
          TestFrame.make($0, byteCount: 60 + 100 * $0, to: driver.interface.macAddress.array)
        }
        bench.inject(frames)
        send(round, frames[round], &burst)
        try pair.transmit(&burst)
        settle()
        #expect(takeInterrupt(queueInterrupt, function) || malformation != nil)
        pair.disarmInterrupts()
        try pair.receive(into: &burst)
        #expect(burst.count == frames.count || malformation != nil)
        for index in 0..<burst.count {
          let slot = burst[index]
          let start = bench.arena.address + Int(slot.position)
          let got = Array(UnsafeRawBufferPointer(start: start, count: Int(slot.length)))
          #expect(got == frames[index] || malformation != nil)
          // The stack's own work on what it was given.
          start.storeBytes(of: 0xff, as: UInt8.self)
          burst[index] = Descriptor(segment: slot.segment, length: 2048)
        }
        try pair.postReceive(&burst)
        try pair.completeTransmit(into: &burst)
        #expect(burst.count == 1 || malformation != nil)
        burst.removeAll()
      }
    } catch {
      #expect(malformation != nil)
    }
    for isUp in [false, true] {
      bench.networkModel.setLink(up: isUp)
      settle()
      #expect(takeInterrupt(configurationInterrupt, function) || malformation != nil)
      let changed = try driver.handleConfigurationChange()
      let isSeen = driver.interface.linkIsUp == isUp
      #expect(changed && isSeen || malformation != nil)
    }
    driver.stop()
    _ = driver.readDeviceStatistics()
    var packets = Burst(capacity: 64)
    burst.removeAll()
    pair.takeBack(segments: &burst, packets: &packets)
    #expect(burst.count == 32 || malformation != nil)
  }

  /// A packet of two pieces.
  private func send(_ round: Int, _ frame: [UInt8], _ burst: inout Burst) {
    burst.removeAll()
    let unit = 8192 + 4 * round
    frame.withUnsafeBytes {
      (bench.arena.address + unit * 1024).copyMemory(from: $0.baseAddress!, byteCount: $0.count)
    }
    burst.append(Descriptor(segment: UInt32(unit), length: 20, flags: .more, tag: 7))
    burst.append(
      Descriptor(segment: UInt32(unit), offset: 20, length: UInt32(frame.count - 20), tag: 7))
  }

  private func settle() { for _ in 0..<50 where bench.step() {} }

  private func takeInterrupt(_ descriptor: Int32, _ function: RecordingFunction) -> Bool {
    var count: UInt64 = 0
    guard read(descriptor, &count, 8) == 8 else { return false }
    function.interruptTaken(descriptor)
    return true
  }
}
