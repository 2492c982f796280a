import CLinux
import Channel
import Confinement
import Driver
import Glibc
import Memory
import PCI
import Trace
import VFIO
import VhostUser

/// The driver host process, from its start to its end: takes what it inherits, gives up everything else, then drives
/// the function until its supervisor goes.
///
/// Descriptors: 3 control, 4 device, 5 rings, 6 arena, 7 channel, 8 counters, 9 rung for the host, 10 rung by it, 11 the
/// pipe for the run's trace where it is recorded.
public struct DriverHost: DriverVisitor, ~Copyable {
  private let arguments: HostArguments
  private let supervisor: SupervisorSocket
  private let rings: Arena
  private let arena: Arena
  private let channel: ChannelMemory
  private var counters: CounterPage?
  private let configurationInterrupt: Int32
  private let queueInterrupts: [Int32]
  private let function: any PCIFunction
  private let identity: PCIMatch
  @usableFromInline var hasDriven = false

  private enum Inherited {
    static let control: Int32 = 3
    static let device: Int32 = 4
    static let rings: Int32 = 5
    static let arena: Int32 = 6
    static let channel: Int32 = 7
    static let counters: Int32 = 8
    static let ownDoorbell: Int32 = 9
    static let peerDoorbell: Int32 = 10
    static let trace: Int32 = 11
  }

  /// Slots of each ring of the channel.
  public static let channelSlots = 4096
  /// Entries of the counter page.
  public static func counterCapacity(queues: Int) -> Int {
    HostStatistics.capacity(queues: queues)
  }

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
    } catch {
      supervisor.say("error \(error)")
      return 1
    }
  }

  /// Takes what was inherited, then confines the process.
  private static func start(
    _ arguments: HostArguments, _ supervisor: SupervisorSocket
  ) throws(HostError) -> DriverHost {
    let rings = try inherit(Inherited.rings, arguments.ringsBytes)
    let arena = try inherit(
      Inherited.arena, arguments.arenaBytes, at: arguments.arenaAddress)
    guard let layout = ChannelLayout(queues: arguments.queues, slots: channelSlots) else {
      throw .arguments("there is no channel for \(arguments.queues) queues")
    }
    let channel: ChannelMemory
    do throws(ChannelError) {
      channel = try ChannelMemory(adopting: Inherited.channel, layout: layout)
    } catch {
      throw .memory(error.description)
    }
    let counters: CounterPage
    do throws(MemoryError) {
      counters = try CounterPage(
        adopting: Inherited.counters, capacity: counterCapacity(queues: arguments.queues),
        writable: true)
    } catch {
      throw .memory(error.description)
    }
    let interrupts = (0...arguments.queues).map { _ in eventfd(0, Int32(EFD_NONBLOCK)) }
    let doorbells =
      arguments.access == .vhostUser ? VhostUserDoorbells(queuePairs: arguments.queues) : nil
    // Everything that needs a path, a new descriptor of this kind or a right has been done.
    if arguments.isConfined {
      do throws(ConfinementError) {
        try Confinement.enter()
      } catch {
        throw .confinement(error)
      }
    }
    let function = try openFunction(arguments, doorbells)
    return DriverHost(
      arguments: arguments, function: function, identity: try identify(function),
      supervisor: supervisor, rings: rings, arena: arena, channel: channel,
      counters: counters, configurationInterrupt: interrupts[0],
      queueInterrupts: Array(interrupts.dropFirst()))
  }

  private static func inherit(
    _ descriptor: Int32, _ byteCount: Int, at address: UInt? = nil
  ) throws(HostError) -> Arena {
    do throws(MemoryError) {
      return try Arena(adopting: descriptor, byteCount: byteCount, at: address)
    } catch {
      throw .memory(error.description)
    }
  }

  private init(
    arguments: HostArguments, function: any PCIFunction, identity: PCIMatch,
    supervisor: SupervisorSocket, rings: consuming Arena,
    arena: consuming Arena, channel: consuming ChannelMemory, counters: consuming CounterPage,
    configurationInterrupt: Int32, queueInterrupts: [Int32]
  ) {
    self.arguments = arguments
    self.function = function
    self.identity = identity
    self.supervisor = supervisor
    self.rings = rings
    self.arena = arena
    self.channel = channel
    self.counters = consume counters
    self.configurationInterrupt = configurationInterrupt
    self.queueInterrupts = queueInterrupts
  }

  /// Drives the function until the supervisor says stop, if it is one of the driver's and none has done so before.
  @inlinable
  public mutating func visit<D: NetworkDriver & ~Copyable>(_ driver: D.Type) throws(HostError) {
    if hasDriven || !matches(driver) { return }
    if isRecorded {
      try record(driver)
    } else {
      var loop = try makeLoop(driver)
      try loop.run()
    }
  }

  @usableFromInline var isRecorded: Bool { arguments.isRecorded }

  @usableFromInline
  func matches<D: NetworkDriver & ~Copyable>(_ driver: D.Type) -> Bool {
    D.matches.contains(identity)
  }

  /// Drives the function with all that the driver does written down.
  @usableFromInline
  mutating func record<D: NetworkDriver & ~Copyable>(_ driver: D.Type) throws(HostError) {
    let recording = RunRecorder(descriptor: Inherited.trace)
      .record(function, rings: ringsRange, arena: arenaRange)
    defer { recording.finish() }
    var loop = try makeLoop(TracedDriver<D>.self, recording)
    try loop.run()
  }

  private var ringsRange: DMARange {
    DMARange(address: rings.address, iova: arguments.ringsIOVA, byteCount: rings.byteCount)
  }

  private var arenaRange: DMARange {
    DMARange(address: arena.address, iova: arguments.arenaIOVA, byteCount: arena.byteCount)
  }

  /// Sets up the function and all of its packet paths.
  @usableFromInline
  mutating func makeLoop<D: NetworkDriver & ~Copyable>(
    _ driver: D.Type, _ recording: RecordingFunction? = nil
  ) throws(HostError) -> HostLoop<D> {
    guard let counters = counters.take() else { throw noDriver() }
    hasDriven = true
    let interrupts =
      arguments.mode == .poll
      ? InterruptPlan.none
      : InterruptPlan(configuration: configurationInterrupt, queues: queueInterrupts)
    var device = try make(
      driver,
      DriverResources(
        function: recording ?? function, rings: DMAZone(ringsRange), arena: arenaRange,
        queuePairs: arguments.queues,
        ringSize: arguments.ringSize, mtu: arguments.mtu, without: arguments.without,
        interrupts: interrupts,
        requiresPlatformAccess: arguments.requiresPlatformAccess))
    supervisor.say("ready " + describe(device.interface))
    let paths = makePaths(&device)
    let descriptors = HostDescriptors(
      supervisor: supervisor.descriptor, doorbell: Inherited.ownDoorbell,
      configurationInterrupt: configurationInterrupt, queueInterrupts: queueInterrupts,
      device: arguments.access == .vfio ? -1 : Inherited.device, recording: recording)
    return HostLoop(
      driver: device, paths: paths, descriptors: descriptors, mode: arguments.mode,
      supervisor: supervisor,
      statistics: HostStatistics(
        page: counters, queues: arguments.queues, device: D.deviceStatistics))
  }

  private func make<D: NetworkDriver & ~Copyable>(
    _ driver: D.Type, _ resources: consuming DriverResources
  ) throws(HostError) -> D {
    do throws(DriverError) {
      try D.checkOmissions(resources)
      return try D(resources)
    } catch {
      throw .driver(error)
    }
  }

  private func noDriver() -> HostError {
    .arguments("\(arguments.deviceName) (\(identity)) is a function for none of the drivers")
  }

  private static func identify(_ function: any PCIFunction) throws(HostError) -> PCIMatch {
    do throws(PCIError) {
      return PCIMatch(vendor: try function.vendor, device: try function.device)
    } catch {
      throw .pci(error)
    }
  }

  private static func openFunction(
    _ arguments: HostArguments, _ doorbells: VhostUserDoorbells?
  ) throws(HostError) -> any PCIFunction {
    do throws(PCIError) {
      switch arguments.access {
      case .vfio:
        return try KernelVFIOFunction(descriptor: Inherited.device, name: arguments.deviceName)
      case .vfioUser:
        return try VFIOUserFunction(negotiated: Inherited.device, name: arguments.deviceName)
      case .vhostUser:
        return try VhostUserFunction(
          negotiated: Inherited.device, name: arguments.deviceName,
          doorbells: doorbells ?? VhostUserDoorbells(queuePairs: arguments.queues))
      }
    } catch {
      throw .pci(error)
    }
  }

  /// One path for each queue pair, with an equal part of the receive segments.
  private func makePaths<D: NetworkDriver & ~Copyable>(
    _ device: inout D
  ) -> PathArray<D.QueuePair> {
    let count = device.interface.queuePairs
    var paths = PathArray<D.QueuePair>(capacity: count)
    let share = arguments.receiveBytes / count / 4096 * 4096
    for queue in 0..<count {
      paths.append(
        PacketPath(
          queuePair: device.takeQueuePair(queue),
          channel: HostEnd(channel, queue: queue, peerEvent: Inherited.peerDoorbell),
          ledger: SegmentLedger(
            firstUnit: UInt32(queue * share / Descriptor.unit), byteCount: share,
            segmentSize: D.receiveBufferBytes ?? 2048, isColoured: D.receiveBufferBytes == nil),
          transmitPart: UInt64(arguments.receiveBytes)..<UInt64(arena.byteCount)))
    }
    return paths
  }
}
