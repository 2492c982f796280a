import CLinux
import Channel
import Driver
import EmulatedPCI
import Glibc
import Memory
import PCI
import Synchronization
import Virtio
import VirtioNet
import VirtioNetDevice
import Wire

@testable import Host

/// A model that several threads may use: one access, or one step, at a time.
final class ExclusiveFunction: PCIFunction, @unchecked Sendable {
  // Invariant: everything below is used under `exclusion` only.
  // One of the C library's, which the thread sanitizer knows.
  private let exclusion = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let function: InProcessFunction
  private var region: RegisterWindow?
  /// What has been written to registers since the device was last reset by writing its status.
  private(set) var writesSinceReset = 0

  init(_ model: EmulatedFunction) {
    function = InProcessFunction(model)
    pthread_mutex_init(exclusion, nil)
  }

  deinit {
    pthread_mutex_destroy(exclusion)
    exclusion.deallocate()
  }

  var name: String { function.name }

  func exclusively<R>(_ body: () -> R) -> R {
    pthread_mutex_lock(exclusion)
    defer { pthread_mutex_unlock(exclusion) }
    return body()
  }

  private func trying<R>(_ body: () throws(PCIError) -> R) throws(PCIError) -> R {
    pthread_mutex_lock(exclusion)
    defer { pthread_mutex_unlock(exclusion) }
    return try body()
  }

  func step() -> Bool { exclusively { function.step() } }

  func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    try trying { () throws(PCIError) in try function.readConfiguration(at: offset, width: width) }
  }

  func writeConfiguration(_ value: UInt32, at offset: Int, width: RegisterWidth) throws(PCIError) {
    try trying { () throws(PCIError) in
      try function.writeConfiguration(value, at: offset, width: width)
    }
  }

  func openRegion(bar: Int) throws(PCIError) -> RegisterRegion {
    let inner = try function.openRegion(bar: bar)
    region = try inner.window(at: 0, byteCount: inner.byteCount)
    return RegisterRegion(
      bar: bar, byteCount: inner.byteCount,
      calls: RegisterCalls(
        context: Unmanaged.passUnretained(self).toOpaque(),
        load: { context, _, offset, byteCount in
          Unmanaged<ExclusiveFunction>.fromOpaque(context).takeUnretainedValue()
            .load(Int(offset), byteCount)
        },
        store: { context, _, offset, byteCount, value in
          Unmanaged<ExclusiveFunction>.fromOpaque(context).takeUnretainedValue()
            .store(value, Int(offset), byteCount)
        }))
  }

  private func load(_ offset: Int, _ byteCount: Int32) -> UInt64 {
    exclusively {
      switch byteCount {
      case 1: UInt64(region!.read8(at: offset))
      case 2: UInt64(region!.read16(at: offset))
      default: UInt64(region!.read32(at: offset))
      }
    }
  }

  private func store(_ value: UInt64, _ offset: Int, _ byteCount: Int32) {
    exclusively {
      writesSinceReset += 1
      if offset == VirtioPCI.Common.deviceStatus, value == 0 { writesSinceReset = 0 }
      switch byteCount {
      case 1: region!.write8(UInt8(value), at: offset)
      case 2: region!.write16(UInt16(value), at: offset)
      default: region!.write32(UInt32(value), at: offset)
      }
    }
  }

  var interrupts: InterruptCapability {
    get throws(PCIError) { try trying { () throws(PCIError) in try function.interrupts } }
  }
  func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {
    try trying { () throws(PCIError) in
      try function.enableInterrupts(kind, eventfds: eventfds)
    }
  }
  func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {
    try trying { () throws(PCIError) in try function.disableInterrupts(kind) }
  }
  func unmaskINTx() throws(PCIError) {
    try trying { () throws(PCIError) in try function.unmaskINTx() }
  }
  func reset() throws(PCIError) { try trying { () throws(PCIError) in try function.reset() } }
}

/// A driver host of two queue pairs with its threads, and the ends that it talks to, in one process. The test is the
/// supervisor, the device and the stack instance.
final class ThreadBench: @unchecked Sendable {
  static let pairs = 2
  static let partBytes = 1 << 20
  let wire = MemoryWire()
  let device: VirtioNetDevice
  let function: ExclusiveFunction
  let memory: ChannelMemory
  let arena: UnsafeMutableRawPointer
  let control: Int32
  let doorbells: [Int32]
  /// The host's end and the instance's of what wakes the instance.
  let instanceBell: Int32
  let instanceEnd: Int32
  private let hostControl: Int32
  private let rings: UnsafeMutableRawPointer
  private let mode: PollMode
  private let eventfds: [Int32]
  private let outcome = Mutex<String?>(nil)
  private var runner: QueueThread?
  private let statistics = Mutex<HostStatistics?>(nil)
  /// The host's counters at its end.
  private(set) var counters: [String: UInt64] = [:]
  /// The host's counters now, those that are not 0.
  var published: String {
    let counters = statistics.withLock { $0 }?.counters ?? []
    return counters.filter { $0.value > 0 }.map { "\($0.name) \($0.value)" }.joined(separator: ", ")
  }

  init(_ mode: PollMode) throws {
    self.mode = mode
    var options = VirtioNetDevice.Options()
    options.queuePairs = Self.pairs
    device = VirtioNetDevice(wire: wire, options: options)
    function = ExclusiveFunction(device)
    rings = .allocate(byteCount: 1 << 20, alignment: 4096)
    arena = .allocate(byteCount: 2 * Self.partBytes, alignment: 4096)
    arena.initializeMemory(as: UInt8.self, repeating: 0, count: 2 * Self.partBytes)
    memory = try ChannelMemory(layout: ChannelLayout(queues: Self.pairs, slots: 256)!)
    let part = UInt64(Self.partBytes)
    try device.iommu.map(
      iova: 1 << 20, byteCount: 1 << 20, address: rings, rights: [.read, .write])
    try device.iommu.map(iova: 1 << 24, byteCount: part, address: arena, rights: [.read, .write])
    try device.iommu.map(
      iova: 1 << 24 + part, byteCount: part, address: arena + Self.partBytes, rights: .read)
    var sockets: [Int32] = [-1, -1]
    socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &sockets)
    (control, hostControl) = (sockets[0], sockets[1])
    eventfds = (0..<8).map { _ in eventfd(0, Int32(EFD_NONBLOCK)) }
    doorbells = Array(eventfds[0..<2])
    (instanceBell, instanceEnd) = try CommandDoorbell.pair()
  }

  deinit {
    rings.deallocate()
    arena.deallocate()
    for descriptor in eventfds + [control, hostControl, instanceBell, instanceEnd] {
      close(descriptor)
    }
  }

  func instance(_ queue: Int) -> InstanceEnd {
    InstanceEnd(memory, queue: queue, hostDoorbell: doorbells[queue])
  }

  /// Starts the host's control thread, which starts the others. ``step()`` has to be called on.
  func start() throws {
    let runner = try QueueThread(queue: 99, core: nil)
    self.runner = runner
    runner.start { [self] in
      let result: String
      do throws(HostError) {
        try drive()
        result = "stopped"
      } catch {
        result = error.description
      }
      outcome.withLock { $0 = result }
    }
  }

  private func drive() throws(HostError) {
    let page: CounterPage
    do throws(MemoryError) {
      page = try CounterPage(capacity: HostStatistics.capacity(queues: Self.pairs))
    } catch {
      throw .memory(error.description)
    }
    let setup = DriverSetup(
      function: function,
      rings: DMARange(address: rings, iova: 1 << 20, byteCount: 1 << 20),
      arena: DMARange(address: arena, iova: 1 << 24, byteCount: 2 * Self.partBytes),
      arguments: try HostArguments([
        "--queues", "\(Self.pairs)", "--rings-bytes", "\(1 << 20)",
        "--arena-bytes", "\(2 * Self.partBytes)", "--receive-bytes", "\(Self.partBytes)",
      ]),
      interrupts: mode == .poll
        ? .none : InterruptPlan(configuration: eventfds[3], queues: [eventfds[4], eventfds[5]]))
    var driver: VirtioNet
    do throws(DriverError) {
      driver = try setup.make(VirtioNet.self)
    } catch {
      throw .driver(error)
    }
    var paths = PathArray<PacketPath<VirtioNetQueuePair>>(capacity: Self.pairs)
    let share = Self.partBytes / Self.pairs
    for queue in 0..<Self.pairs {
      paths.append(
        PacketPath(
          queuePair: driver.takeQueuePair(queue),
          channel: HostEnd(memory, queue: queue, instanceDoorbell: instanceBell),
          ledger: SegmentLedger(
            firstUnit: UInt32(queue * share / Descriptor.unit), byteCount: share),
          transmitPart: UInt64(Self.partBytes)..<UInt64(2 * Self.partBytes)))
    }
    var threads: [QueueThread] = []
    for queue in 0..<Self.pairs { threads.append(try QueueThread(queue: queue, core: nil)) }
    var wakes: [WakeSet] = []
    for queue in 0..<Self.pairs {
      let wake = try WakeSet(interrupt: eventfds[4 + queue])
      _ = wake.add(doorbells[queue])
      wakes.append(wake)
    }
    let statistics = HostStatistics(page: page, queues: Self.pairs, device: [])
    defer { for (name, value) in statistics.counters { counters[name] = value } }
    self.statistics.withLock { $0 = statistics }
    var host = HostControl<VirtioNet, PacketPath<VirtioNetQueuePair>>(
      driver: driver, setup: setup, paths: paths, threads: threads,
      descriptors: wakes.map {
        QueueDescriptors(wakes: $0, alsoInterrupted: [], recording: nil)
      }, mode: mode,
      events: ControlEvents(
        supervisor: hostControl, failed: eventfds[6], configurationInterrupt: eventfds[3],
        device: -1, recording: nil), supervisor: SupervisorSocket(descriptor: hostControl),
      statistics: statistics, run: HostRun(failed: eventfds[6], wakes: wakes))
    try host.drive()
  }

  func stop() { _ = linux_send_descriptors(control, "stop", 4, nil, 0, 0) }

  /// Lets the device work until the host has ended, at most ten seconds.
  /// - Returns: why it ended.
  func end() -> String {
    for _ in 0..<100_000 {
      if let result = outcome.withLock({ $0 }) {
        runner?.join()
        return result
      }
      _ = function.step()
      usleep(100)
    }
    return "still running"
  }

  /// Whether `condition` comes true within thirty seconds, while the device works.
  func waits(for condition: () throws -> Bool) rethrows -> Bool {
    let end = monotonic_milliseconds() + 30_000
    while monotonic_milliseconds() < end {
      if try condition() { return true }
      if !function.step() { sched_yield() }
    }
    return false
  }

  static func frame(_ number: Int) -> [UInt8] {
    [
      0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 8, 0, UInt8(number & 255),
      UInt8(number >> 8),
    ]
      + (16..<200).map { UInt8(truncatingIfNeeded: $0 &* (number + 3)) }
  }
}
