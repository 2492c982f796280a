import Channel
import Driver
import Glibc
import Memory
import PCI
import Steering

/// The control thread of a driver host: starts the device and the queue threads, sleeps until the supervisor, the device
/// or a queue thread has something to say, and ends them all.
///
/// What is inlinable is compiled for each driver of a host program.
@usableFromInline
struct HostControl<D: NetworkDriver & ~Copyable, Path: QueuePath & ~Copyable>: ~Copyable
where Path.QueuePair == D.QueuePair {
  var driver: D
  private let setup: DriverSetup
  @usableFromInline let paths: PathArray<Path>
  private let threads: [QueueThread]
  private let descriptors: [QueueDescriptors]
  private let mode: PollMode
  var events: ControlEvents
  let supervisor: SupervisorSocket
  let statistics: HostStatistics
  let run: HostRun
  /// nil where there is one instance only.
  let instances: InstanceControl?
  /// How often the device has gone and come back.
  var reconnects: UInt64 = 0
  private(set) var announced: NetworkInterface
  /// What the device is to let through; nil until there are claims: all groups, as it does by itself.
  var filter: StationFilter?
  /// Whether the device has been told.
  var isFilterSet = false

  /// - Parameters:
  ///   - threads: one for each queue pair at least.
  ///   - descriptors: for each of them, what it sleeps on.
  init(
    driver: consuming D, setup: DriverSetup, paths: consuming PathArray<Path>,
    threads: [QueueThread],
    descriptors: [QueueDescriptors], mode: PollMode, events: ControlEvents,
    supervisor: SupervisorSocket, statistics: HostStatistics, run: HostRun,
    instances: InstanceControl? = nil
  ) {
    announced = driver.interface
    self.driver = driver
    self.setup = setup
    self.paths = paths
    self.threads = threads
    self.descriptors = descriptors
    self.mode = mode
    self.events = events
    self.supervisor = supervisor
    self.statistics = statistics
    self.run = run
    self.instances = instances
  }

  /// Runs until the supervisor says so or is gone.
  /// - Throws: why the host cannot go on: the first reason, where there are several. The device is stopped in either
  ///   case, after the last thread that used a queue pair has ended.
  @inlinable
  mutating func drive() throws(HostError) {
    do throws(HostError) {
      try startDevice()
      repeat {
        for queue in 0..<paths.count { startThread(queue) }
      } while try watch() == .returned
    } catch {
      finish()
      throw error
    }
    finish()
  }

  @usableFromInline
  mutating func startDevice() throws(HostError) {
    run.signs.pulse(0).set(.working)
    try wrapping { () throws(DriverError) in try driver.start() }
    try setup.confineLoop()
    statistics.publish(landlock: setup.confined?.landlockVersion ?? 0)
    run.signs.note(.started)
    supervisor.say("started")
  }

  @inlinable
  func startThread(_ queue: Int) {
    let loop = makeLoop(queue)
    start(queue) {
      var own = loop
      own.turn()
    }
  }

  @usableFromInline
  func makeLoop(_ queue: Int) -> QueueLoop<Path> {
    QueueLoop(
      path: paths.elements + queue, queue: queue, mode: mode, descriptors: descriptors[queue],
      statistics: statistics, run: run)
  }

  @usableFromInline
  func start(_ queue: Int, _ work: sending @escaping () -> Void) {
    threads[queue].start(work)
  }

  /// Why the control thread has stopped watching.
  @usableFromInline
  enum Word { case stop, returned }

  /// Watches until the supervisor says stop, or the device has gone and come back: then the queue threads, which are at
  /// rest, can start again.
  @usableFromInline
  mutating func watch() throws(HostError) -> Word {
    let pulse = run.signs.pulse(0)
    try updateFilter()
    while true {
      pulse.set(.sleeping)
      let event = events.wait()
      pulse.set(.working)
      if let failure = run.firstFailure { throw failure }
      if event.supervisor, !listen() { return .stop }
      instances?.service()
      try updateFilter()
      // Instances that come and go are no reason to look at the device.
      if event.instances { continue }
      statistics.publish(device: driver.readDeviceStatistics())
      var changed = false
      do throws(DriverError) {
        changed = try driver.handleConfigurationChange()
      } catch {
        guard setup.returning != nil, error.isLoss else { throw .driver(error) }
        run.stop()
        for queue in 0..<paths.count { threads[queue].finishWork() }
        guard try awaitReturn(of: setup, after: error) else { return .stop }
        run.resume()
        return .returned
      }
      if changed, driver.interface != announced {
        announced = driver.interface
        supervisor.say("interface " + describe(announced))
      }
    }
  }

  /// Reads what the supervisor has said.
  /// - Returns: false where it says stop, or is gone.
  private func listen() -> Bool {
    let maps = DeviceMaps(function: setup.function, supervisor: supervisor)
    // Bounded: a supervisor that talks without end does not keep the host from its device.
    for _ in 0..<64 {
      switch supervisor.next() {
      case .nothing: return true
      case .stop: return false
      case .device(let socket): close(socket)
      case .instance(let message, let descriptors):
        if !maps.take(message, descriptors) { take(message, descriptors) }
      }
    }
    return true
  }

  func take(_ message: ControlMessage, _ descriptors: [Int32]) {
    if let instances {
      instances.take(message, descriptors)
    } else {
      for descriptor in descriptors { close(descriptor) }
    }
  }

  @usableFromInline
  mutating func finish() {
    run.stop()
    for thread in threads { thread.join() }
    driver.stop()
    statistics.publish(device: driver.readDeviceStatistics())
    for queue in 0..<paths.count {
      paths[queue].takeBackFromDevice()
      statistics.publish(paths[queue].report, queue: queue)
      paths[queue].publish(to: statistics)
    }
  }
}

extension DriverError {
  /// Whether the device, or the way to it, is no more.
  fileprivate var isLoss: Bool {
    switch self {
    case .deviceGone, .pci: true
    default: false
    }
  }
}

/// A driver's error as the host's.
func wrapping(_ body: () throws(DriverError) -> Void) throws(HostError) {
  do throws(DriverError) {
    try body()
  } catch {
    throw .driver(error)
  }
}

/// The interface as `name=value` pairs, as the supervisor reads it.
func describe(_ interface: NetworkInterface) -> String {
  "mac=\(interface.macAddress) mtu=\(interface.mtu) link=\(interface.linkIsUp ? "up" : "down") "
    + "queues=\(interface.queuePairs) offloads=\(interface.offloads.rawValue) "
    + "features=\(interface.features.joined(separator: ","))"
}
