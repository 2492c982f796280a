import Driver
import EmulatedPCI
import Glibc
import Memory
import PCI
import Testing
import Trace
import VirtioNet
import VirtioNetDevice
import Wire

/// What a host does with VirtioNet: frames in both directions.
struct VirtioNetRun {
  static let frames = 40
  var ringSize = 64
  /// Called where the device has its turn.
  var device: () -> Void = {}

  static func frame(_ number: Int) -> [UInt8] {
    [0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 8, 0]
      + (14..<64).map { UInt8(truncatingIfNeeded: $0 + number) }
  }

  /// - Returns: the frames received.
  func callAsFunction(
    _ function: any TracedFunction, rings: TestMemory, arena: TestMemory
  ) throws -> [[UInt8]] {
    var driver = try VirtioNet(
      DriverResources(
        function: function, rings: DMAZone(rings.range), arena: arena.range, ringSize: ringSize))
    var pair = driver.takeQueuePair(0)
    try driver.start()
    var received: [[UInt8]] = []
    var burst = Burst(capacity: 64)
    var sent = 0
    for number in 0..<Self.frames {
      burst.append(
        Descriptor(segment: UInt32(2 * number), length: 2048))
      try pair.postReceive(&burst)
      let place = 100 + number
      (arena.range.address + place * 1024).copyMemory(from: Self.frame(number), byteCount: 64)
      burst.append(Descriptor(segment: UInt32(place), length: 64, tag: UInt16(number)))
      try pair.transmit(&burst)
      device()
      function.mark("receive")
      try pair.receive(into: &burst)
      for index in 0..<burst.count {
        let start = Int(burst[index].position)
        received.append(arena.bytes(start..<start + Int(burst[index].length)))
      }
      burst.removeAll()
      try pair.completeTransmit(into: &burst)
      sent += burst.count
      burst.removeAll()
    }
    #expect(sent == Self.frames)
    driver.stop()
    return received
  }

  static let ringsIOVA: UInt64 = 0x10_0000
  static let arenaIOVA: UInt64 = 0x4000_0000
}

struct VirtioNetTraceTests {
  let rings = TestMemory(iova: VirtioNetRun.ringsIOVA, byteCount: 64 << 10)
  let arena = TestMemory(iova: VirtioNetRun.arenaIOVA, byteCount: 256 << 10)
  let device: VirtioNetDevice
  let wire = MemoryWire()

  init() throws {
    device = VirtioNetDevice(wire: wire)
    for memory in [rings, arena] {
      try device.iommu.map(
        iova: memory.range.iova, byteCount: UInt64(memory.range.byteCount),
        address: memory.range.address, rights: [.read, .write])
    }
  }

  var traced: [TracedMemory] {
    [TracedMemory("rings", rings.range), TracedMemory("arena", arena.range)]
  }

  func record() throws -> String {
    var text = ""
    let function = RecordingFunction(InProcessFunction(device), memory: traced) { text += $0 }
    wire.arriving = (0..<VirtioNetRun.frames).map { VirtioNetRun.frame($0) }
    var run = VirtioNetRun()
    run.device = { [device] in _ = device.step() }
    let received = try run(function, rings: rings, arena: arena)
    function.finish()
    #expect(received == (0..<VirtioNetRun.frames).map { VirtioNetRun.frame($0) })
    #expect(wire.sent.count == VirtioNetRun.frames && device.violations.first == [])
    return text
  }

  @Test func whatWasRecordedIsReplayed() throws {
    let trace = try Trace(text: record())
    #expect(trace.labels.count == VirtioNetRun.frames)
    let rings = TestMemory(iova: VirtioNetRun.ringsIOVA, byteCount: 64 << 10)
    let arena = TestMemory(iova: VirtioNetRun.arenaIOVA, byteCount: 256 << 10)
    let function = try ReplayedFunction(trace, memory: [rings.range, arena.range])
    let received = try VirtioNetRun()(function, rings: rings, arena: arena)
    try function.finish()
    #expect(received == (0..<VirtioNetRun.frames).map { VirtioNetRun.frame($0) })
  }

  @Test func anotherRingSizeIsADivergence() throws {
    let text = try record()
    let rings = TestMemory(iova: VirtioNetRun.ringsIOVA, byteCount: 64 << 10)
    let arena = TestMemory(iova: VirtioNetRun.arenaIOVA, byteCount: 256 << 10)
    let function = try ReplayedFunction(
      try Trace(text: text), memory: [rings.range, arena.range])
    #expect(throws: DriverError.self) {
      _ = try VirtioNetRun(ringSize: 32)(function, rings: rings, arena: arena)
    }
    let divergence = try #require(function.divergence)
    // The queue's size, in the common configuration.
    #expect(divergence.expected == "w2 4 0x0018 0x0040" && divergence.got == "w2 4 0x0018 0x0020")
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    #expect(lines[divergence.line - 1] == "w2 4 0x0018 0x0040")
    #expect(divergence.description.hasPrefix("line \(divergence.line): expected w2 4"))
  }

  /// A device at work beside the driver: its answer to a doorbell comes a little later, in memory alone.
  @Test func theAnswerToADoorbellIsReplayed() throws {
    func run(
      _ function: any PCIFunction, _ rings: TestMemory, _ arena: TestMemory,
      _ stepper: Stepper? = nil
    ) throws {
      var driver = try VirtioNet(
        DriverResources(
          function: function, rings: DMAZone(rings.range), arena: arena.range, ringSize: 64))
      try driver.start()
      stepper?.start()
      defer {
        stepper?.stop()
        driver.stop()
      }
      try driver.setPromiscuous(true)
      try driver.setPromiscuous(false)
    }
    var text = ""
    let recording = RecordingFunction(
      InProcessFunction(device), memory: traced, settling: 20_000
    ) { text += $0 }
    try run(recording, rings, arena, Stepper(device))
    recording.finish()
    let rings = TestMemory(iova: VirtioNetRun.ringsIOVA, byteCount: 64 << 10)
    let arena = TestMemory(iova: VirtioNetRun.arenaIOVA, byteCount: 256 << 10)
    let function = try ReplayedFunction(
      try Trace(text: text), memory: [rings.range, arena.range])
    try run(function, rings, arena)
    try function.finish()
  }
}

/// Steps a model from another thread.
final class Stepper: @unchecked Sendable {
  // Invariant: the model is touched by one thread at a time, as the driver waits after each access.
  private let device: VirtioNetDevice
  private var thread = pthread_t()
  private let running = UnsafeMutablePointer<Bool>.allocate(capacity: 1)

  init(_ device: VirtioNetDevice) { self.device = device }
  deinit { running.deallocate() }

  func start() {
    running.initialize(to: true)
    pthread_create(
      &thread, nil,
      { argument in
        let stepper = Unmanaged<Stepper>.fromOpaque(argument!).takeUnretainedValue()
        while stepper.running.pointee {
          // Asleep between its turns, so that it needs a doorbell for each command.
          _ = stepper.device.step()
          _ = stepper.device.prepareToSleep()
          usleep(1000)
        }
        return nil
      }, Unmanaged.passUnretained(self).toOpaque())
  }

  func stop() {
    running.pointee = false
    pthread_join(thread, nil)
  }
}
