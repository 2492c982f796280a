import Channel
import Driver
import Glibc
import Memory
import PCI

/// The control thread of a driver host: starts the device and the queue threads, sleeps until the supervisor, the device
/// or a queue thread has something to say, and ends them all.
///
/// What is inlinable is compiled for each driver of a host program.
@usableFromInline
struct HostControl<D: NetworkDriver & ~Copyable>: ~Copyable {
  private var driver: D
  @usableFromInline let paths: PathArray<D.QueuePair>
  private let threads: [QueueThread]
  private let descriptors: [QueueDescriptors]
  private let mode: PollMode
  private let events: ControlEvents
  private let supervisor: SupervisorSocket
  private let statistics: HostStatistics
  private let run: HostRun
  private var announced: NetworkInterface

  /// - Parameters:
  ///   - threads: one for each queue pair at least.
  ///   - descriptors: for each of them, what it sleeps on.
  init(
    driver: consuming D, paths: consuming PathArray<D.QueuePair>, threads: [QueueThread],
    descriptors: [QueueDescriptors], mode: PollMode, events: ControlEvents,
    supervisor: SupervisorSocket, statistics: HostStatistics, run: HostRun
  ) {
    announced = driver.interface
    self.driver = driver
    self.paths = paths
    self.threads = threads
    self.descriptors = descriptors
    self.mode = mode
    self.events = events
    self.supervisor = supervisor
    self.statistics = statistics
    self.run = run
  }

  /// Runs until the supervisor says so or is gone.
  /// - Throws: why the host cannot go on: the first reason, where there are several. The device is stopped in either
  ///   case, after the last thread that used a queue pair has ended.
  @inlinable
  mutating func drive() throws(HostError) {
    do throws(HostError) {
      try startDevice()
      for queue in 0..<paths.count { startThread(queue) }
      try watch()
    } catch {
      finish()
      throw error
    }
    finish()
  }

  @usableFromInline
  mutating func startDevice() throws(HostError) {
    try wrapping { () throws(DriverError) in try driver.start() }
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
  func makeLoop(_ queue: Int) -> QueueLoop<D.QueuePair> {
    QueueLoop(
      path: paths.elements + queue, queue: queue, mode: mode, descriptors: descriptors[queue],
      statistics: statistics, run: run)
  }

  @usableFromInline
  func start(_ queue: Int, _ work: sending @escaping () -> Void) {
    threads[queue].start(work)
  }

  @usableFromInline
  mutating func watch() throws(HostError) {
    while true {
      let event = events.wait()
      if let failure = run.firstFailure { throw failure }
      if event.supervisor, !supervisor.mayGoOn() { return }
      statistics.publish(device: driver.readDeviceStatistics())
      var changed = false
      try wrapping { () throws(DriverError) in changed = try driver.handleConfigurationChange() }
      if changed, driver.interface != announced {
        announced = driver.interface
        supervisor.say("interface " + describe(announced))
      }
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
      statistics.publish(paths[queue], queue: queue)
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
