import CLinux
import Channel
import Confinement
import Driver
import Glibc
import Memory
import PCI
import Trace
import VhostUser

/// The driver host process, from its start to its end: takes what it inherits, gives up everything else, then drives
/// the function until its supervisor goes. Its first thread is for control; each queue pair has one of its own.
///
/// Descriptors: 3 control, 4 device, 5 rings, 6 arena, 7 channel, 8 counters, 9 the pipe for the run's trace where it is
/// recorded, 10 the record that outlives the host (``HostRecord``), 11 and 12 what captures are written to and how far they
/// have been read; with one instance 13, the host's end of the sockets that wake it, and 14 + n, rung by it for queue pair n.
public struct DriverHost: DriverVisitor, ~Copyable {
  private let arguments: HostArguments
  private let supervisor: SupervisorSocket
  private let rings: Arena
  private var memory: HostMemory
  private var counters: CounterPage?
  private let record: HostRecord
  private let captures: HostCaptures
  private let configurationInterrupt: Int32
  private let queueInterrupts: [Int32]
  /// For each queue thread, what wakes it.
  private let wakes: [WakeSet]
  /// Rung by the queue threads for the control thread, where many instances share the function.
  private let instanceNews: Int32
  private let threads: [QueueThread]
  private let run: HostRun
  /// nil where the process is not confined.
  private let confined: ConfinedHost?
  private let function: any PCIFunction
  private let device: Int32
  private let identity: PCIMatch
  @usableFromInline var hasDriven = false

  enum Inherited {
    static let control: Int32 = 3
    static let device: Int32 = 4
    static let rings: Int32 = 5
    static let arena: Int32 = 6
    static let channel: Int32 = 7
    static let counters: Int32 = 8
    static let trace: Int32 = 9
    static let record: Int32 = 10
    static let capture: Int32 = 11
    static let captureReaders: Int32 = 12
    static let instanceDoorbell: Int32 = 13
    static let firstDoorbell: Int32 = 14
  }

  /// Slots of each ring of the channel.
  public static let channelSlots = 4096
  /// Entries of the counter page.
  /// - Parameter isShared: whether many instances share the function.
  public static func counterCapacity(queues: Int, isShared: Bool = false) -> Int {
    HostStatistics.capacity(queues: queues, isShared: isShared)
  }

  /// Histograms of the counter page.
  public static func histograms(queues: Int) -> Int { HostStatistics.histograms(queues: queues) }

  /// The program's whole life. `body` offers each driver that the program has by ``visit(_:)``, until one takes the
  /// function.
  /// - Returns: an exit code.
  public static func main(
    _ arguments: [String], _ body: (inout DriverHost) throws -> Void
  ) -> Int32 {
    let supervisor = SupervisorSocket(descriptor: Inherited.control)
    do {
      var host = try start(HostArguments(arguments), supervisor)
      try body(&host)
      guard host.hasDriven else { throw host.noDriver() }
      return 0
    } catch let error as HostError {
      supervisor.say("\(error.word) \(error)")
      return 1
    } catch {
      supervisor.say("error \(error)")
      return 1
    }
  }

  /// Takes what was inherited, then confines the process.
  private static func start(
    _ arguments: HostArguments, _ supervisor: SupervisorSocket
  ) throws(HostError) -> DriverHost {
    showName(arguments.isStandby ? standbyName : name)
    let record = try HostMemory.record(arguments, Inherited.record)
    if !arguments.isStandby { record.signs.note(.begun) }
    let rings = try HostMemory.adopt(Inherited.rings, arguments.ringsBytes)
    let memory = try HostMemory(arguments, arena: Inherited.arena, channel: Inherited.channel)
    let captures = try HostCaptures(
      area: Inherited.capture, readers: Inherited.captureReaders, queues: arguments.queues)
    let counters: CounterPage
    do throws(MemoryError) {
      counters = try CounterPage(
        adopting: Inherited.counters,
        capacity: counterCapacity(queues: arguments.queues, isShared: arguments.isShared),
        histograms: histograms(queues: arguments.queues), writable: true)
    } catch {
      throw .memory(error.description)
    }
    // Everything that needs a path, a new descriptor of this kind or a right is done before it is given up.
    let interrupts = (0...arguments.queues).map { _ in eventfd(0, Int32(EFD_NONBLOCK)) }
    let instanceNews = eventfd(0, Int32(EFD_NONBLOCK))
    guard instanceNews >= 0, interrupts.allSatisfy({ $0 >= 0 }) else {
      throw .memory("there are not enough descriptors for its interrupts")
    }
    var wakes: [WakeSet] = []
    for queue in 0..<arguments.queues {
      let wake = try WakeSet(interrupt: interrupts[queue + 1])
      let doorbell = Inherited.firstDoorbell + Int32(queue)
      guard arguments.isShared || wake.add(doorbell) else {
        throw .arguments("descriptor \(doorbell) cannot be waited for")
      }
      wakes.append(wake)
    }
    if arguments.isShared { _ = linux_allow_all_descriptors() }
    let run = HostRun(
      failed: eventfd(0, Int32(EFD_NONBLOCK)), wakes: wakes, signs: record.signs)
    let kicks =
      arguments.access == .vhostUser ? VhostUserDoorbells(queuePairs: arguments.queues) : nil
    // One that stands by gets its device under the lowest number that is free.
    let device = arguments.isStandby ? dup(Inherited.control) : Inherited.device
    let (threads, confined) = try confine(arguments, device)
    if arguments.isStandby {
      close(device)
      try standBy(supervisor, for: device)
      showName(name)
      record.signs.note(.begun)
    }
    record.signs.note(.confined)
    let function = try openFunction(arguments, device, kicks)
    return DriverHost(
      arguments: arguments, function: function, identity: try identify(function),
      supervisor: supervisor, rings: rings, memory: memory, counters: counters, record: record,
      captures: captures,
      configurationInterrupt: interrupts[0],
      queueInterrupts: Array(interrupts.dropFirst()), wakes: wakes, instanceNews: instanceNews,
      threads: threads, run: run, device: device, confined: confined)
  }

  private init(
    arguments: HostArguments, function: any PCIFunction, identity: PCIMatch,
    supervisor: SupervisorSocket, rings: consuming Arena,
    memory: consuming HostMemory, counters: consuming CounterPage, record: consuming HostRecord,
    captures: HostCaptures,
    configurationInterrupt: Int32, queueInterrupts: [Int32], wakes: [WakeSet],
    instanceNews: Int32, threads: [QueueThread], run: HostRun, device: Int32,
    confined: ConfinedHost?
  ) {
    self.device = device
    self.arguments = arguments
    self.function = function
    self.identity = identity
    self.supervisor = supervisor
    self.rings = rings
    self.memory = memory
    self.counters = consume counters
    self.record = record
    self.captures = captures
    self.configurationInterrupt = configurationInterrupt
    self.queueInterrupts = queueInterrupts
    self.wakes = wakes
    self.instanceNews = instanceNews
    self.threads = threads
    self.run = run
    self.confined = confined
  }

  /// Drives the function until the supervisor says stop, if it is one of the driver's and none has done so before.
  @inlinable
  public mutating func visit<D: NetworkDriver & ~Copyable>(_ driver: D.Type) throws(HostError) {
    if hasDriven || !matches(driver) { return }
    if isRecorded {
      try record(driver)
      return
    }
    let setup = makeSetup()
    let device = try make(driver, setup)
    // Two ways of packets are compiled: only where the device leaves checksums to this machine do they go through it.
    if device.interface.offloads.contains(.transmitChecksum) {
      try drive(device, setup)
    } else {
      try drive(SoftwareChecksumDriver(device, arena: setup.arena), setup)
    }
  }

  /// For one instance, or for those that come and go.
  @inlinable
  mutating func drive<D: NetworkDriver & ~Copyable>(
    _ device: consuming D, _ setup: DriverSetup
  ) throws(HostError) {
    if isShared {
      var control = try makeSharedControl(device, setup)
      try control.drive()
    } else {
      var control = try makeControl(device, setup)
      try control.drive()
    }
  }

  @usableFromInline var isRecorded: Bool { arguments.isRecorded }
  @usableFromInline var isShared: Bool { arguments.isShared }

  @usableFromInline
  func matches<D: NetworkDriver & ~Copyable>(_ driver: D.Type) -> Bool {
    D.matches.contains(identity)
  }

  /// Drives the function with all that the driver does written down.
  @usableFromInline
  mutating func record<D: NetworkDriver & ~Copyable>(_ driver: D.Type) throws(HostError) {
    let recording = RunRecorder(descriptor: Inherited.trace)
      .record(function, rings: ringsRange, arena: memory.range)
    defer { recording.finish() }
    let setup = makeSetup(recording)
    var control = try makeControl(try make(TracedDriver<D>.self, setup), setup, recording)
    try control.drive()
  }

  private var ringsRange: DMARange {
    DMARange(address: rings.address, iova: arguments.ringsIOVA, byteCount: rings.byteCount)
  }

  /// All that a driver is made from.
  @usableFromInline
  func makeSetup(_ recording: RecordingFunction? = nil) -> DriverSetup {
    DriverSetup(
      function: recording ?? function, rings: ringsRange, arena: memory.range, arguments: arguments,
      interrupts: InterruptPlan(
        configuration: configurationInterrupt,
        queues: arguments.mode == .poll ? [] : queueInterrupts),
      confined: confined)
  }

  /// All packet paths of a driver for one instance, and what controls them.
  @usableFromInline
  mutating func makeControl<D: NetworkDriver & ~Copyable>(
    _ driver: consuming D, _ setup: DriverSetup, _ recording: RecordingFunction? = nil
  ) throws(HostError) -> HostControl<D, PacketPath<D.QueuePair>> {
    guard let channel = memory.channel.take(), let counters = counters.take() else {
      throw noDriver()
    }
    hasDriven = true
    var device = driver
    let paths = try makePaths(&device, channel)
    memory.channel = consume channel
    sayReady(device.interface)
    return HostControl(
      driver: device, setup: setup, paths: paths, threads: threads,
      descriptors: descriptors(recording), mode: arguments.mode,
      events: events(setup, recording), supervisor: supervisor,
      statistics: HostStatistics(
        page: counters, queues: arguments.queues, device: D.deviceStatistics,
        isResumed: arguments.isResumed), run: run)
  }

  private func sayReady(_ interface: NetworkInterface) {
    record.signs.note(.ready)
    supervisor.say("ready " + describe(interface))
  }

  /// The same for instances that come and go.
  @usableFromInline
  mutating func makeSharedControl<D: NetworkDriver & ~Copyable>(
    _ driver: consuming D, _ setup: DriverSetup
  ) throws(HostError) -> HostControl<D, SharedPath<D.QueuePair>> {
    guard let window = memory.window.take(), let counters = counters.take() else {
      throw noDriver()
    }
    hasDriven = true
    var device = driver
    sayReady(device.interface)
    let statistics = HostStatistics(
      page: counters, queues: arguments.queues, device: D.deviceStatistics, isShared: true,
      isResumed: arguments.isResumed)
    let instances = InstanceControl(
      plan: SharedPlan(D.self, device.interface, hostArenaBytes: arguments.arenaBytes),
      window: window, wakes: wakes, changed: instanceNews,
      statistics: statistics, supervisor: supervisor, captures: captures)
    var events = events(setup, nil)
    events.instances = instanceNews
    return HostControl(
      driver: device, setup: setup,
      paths: instances.makePaths(&device, receiveBytes: arguments.receiveBytes),
      threads: threads, descriptors: descriptors(nil), mode: arguments.mode, events: events,
      supervisor: supervisor, statistics: statistics, run: run, instances: instances)
  }

  private func events(_ setup: DriverSetup, _ recording: RecordingFunction?) -> ControlEvents {
    ControlEvents(
      supervisor: supervisor.descriptor, failed: run.failed,
      configurationInterrupt: configurationInterrupt,
      device: arguments.access == .vfio ? -1 : device, recording: recording,
      look: look(setup.interrupts))
  }

  /// How often the device has to be looked at.
  private func look(_ interrupts: InterruptPlan) -> ControlEvents.Look {
    switch arguments.access {
    case .vfio: return .eachSecond
    case .vhostUser: return .rarely
    case .vfioUser:
      let offered = try? function.interrupts
      let isTold = offered.map {
        InterruptVectors.isOneEach($0, pairs: interrupts.queues.count)
      }
      return isTold ?? false ? .eachMinute : .eachSecond
    }
  }

  /// What each queue thread sleeps on.
  private func descriptors(_ recording: RecordingFunction?) -> [QueueDescriptors] {
    // A function with few vectors signals all queue pairs by the first one's eventfd.
    let offered = arguments.queues > 1 ? try? function.interrupts : nil
    let isShared =
      arguments.queues > 1
      && !(offered.map { InterruptVectors.isOneEach($0, pairs: arguments.queues) } ?? false)
    return wakes.indices.map { queue in
      QueueDescriptors(
        wakes: wakes[queue],
        alsoInterrupted: isShared && queue == 0 ? Array(wakes.dropFirst()) : [],
        recording: recording)
    }
  }

  @usableFromInline
  func make<D: NetworkDriver & ~Copyable>(
    _ driver: D.Type, _ setup: DriverSetup
  ) throws(HostError) -> D {
    do throws(DriverError) {
      return try setup.make(driver)
    } catch {
      throw .driver(error)
    }
  }

  private func noDriver() -> HostError {
    .arguments("\(arguments.deviceName) (\(identity)) is a function for none of the drivers")
  }

  /// One path for each queue pair, with an equal part of the receive segments. Each goes on where the host before ended, if
  /// there was one.
  private func makePaths<D: NetworkDriver & ~Copyable>(
    _ device: inout D, _ channel: borrowing ChannelMemory
  ) throws(HostError) -> PathArray<PacketPath<D.QueuePair>> {
    let count = device.interface.queuePairs
    var paths = PathArray<PacketPath<D.QueuePair>>(capacity: count)
    let share = arguments.receiveBytes / count / 4096 * 4096
    for queue in 0..<count {
      let record = record.path(queue, segments: share / Descriptor.unit)
      var ledger = SegmentLedger(
        firstUnit: UInt32(queue * share / Descriptor.unit), byteCount: share,
        segmentSize: D.receiveBufferBytes ?? 2048, isColoured: D.receiveBufferBytes == nil,
        headerBytes: D.receiveHeaderBytes, owners: record.ownerBytes)
      do throws(RecordError) {
        var end = HostEnd(
          channel, queue: queue, instanceDoorbell: Inherited.instanceDoorbell,
          from: try record.reconcile(&ledger))
        guard !arguments.isResumed || end.takeOver() else { throw .badPlace }
        paths.append(
          PacketPath(
            queuePair: device.takeQueuePair(queue), channel: end, ledger: ledger,
            transmitPart: UInt64(arguments.receiveBytes)..<UInt64(arguments.arenaBytes),
            record: record, tap: captures.tap(queue: queue, packets: memory.range)))
      } catch {
        throw .record(queue: queue, error)
      }
    }
    return paths
  }
}
