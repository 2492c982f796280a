import CLinux
import Channel
import Driver
import Glibc
import Memory
import PCI

/// The loop of a driver host: it turns every packet path while there is work, sleeps when there has been none for a
/// while, and looks at the device's configuration and at the supervisor in between.
///
/// What is inlinable is compiled for each driver of a host program; the rest is off the way of packets.
@usableFromInline
struct HostLoop<D: NetworkDriver & ~Copyable>: ~Copyable {
  var driver: D
  private let setup: DriverSetup
  @usableFromInline let paths: PathArray<D.QueuePair>
  var descriptors: HostDescriptors
  @usableFromInline let mode: PollMode
  let supervisor: SupervisorSocket
  @usableFromInline var statistics: HostStatistics
  private(set) var announced: NetworkInterface
  /// When the next look is due, in nanoseconds of the monotonic clock.
  @usableFromInline var nextLook: UInt64 = 0
  /// When the first turn without work was; 0 while there is work.
  @usableFromInline var idleSince: UInt64 = 0
  private var looks: UInt32 = 0
  private var configurationIsDue = false

  init(
    driver: consuming D, setup: DriverSetup, paths: consuming PathArray<D.QueuePair>,
    descriptors: HostDescriptors,
    mode: PollMode, supervisor: SupervisorSocket, statistics: consuming HostStatistics
  ) {
    announced = driver.interface
    self.driver = driver
    self.setup = setup
    self.paths = paths
    self.descriptors = descriptors
    self.mode = mode
    self.supervisor = supervisor
    self.statistics = statistics
  }

  /// Runs until the supervisor says so or is gone.
  /// - Throws: why the host cannot go on. The device is stopped in either case.
  @inlinable
  mutating func run() throws(HostError) {
    do throws(HostError) {
      try start()
      try turnUntilToldToStop()
    } catch {
      finish()
      throw error
    }
    finish()
  }

  @usableFromInline
  mutating func start() throws(HostError) {
    try wrapping { () throws(DriverError) in try driver.start() }
    supervisor.say("started")
  }

  @usableFromInline
  mutating func finish() {
    driver.stop()
    statistics.publish(device: driver.readDeviceStatistics())
    for index in 0..<paths.count { paths[index].takeBackFromDevice() }
    statistics.publish(paths)
  }

  @inlinable @inline(never)
  mutating func turnUntilToldToStop() throws(HostError) {
    var turns: UInt32 = 0
    while true {
      var worked = false
      for index in 0..<paths.count {
        if try paths[index].turn() { worked = true }
      }
      turns &+= 1
      if worked {
        idleSince = 0
        // The clock is read only now and then under load.
        if turns & 63 != 0 { continue }
      }
      if try !pause(afterWork: worked) { return }
    }
  }

  /// Between two turns: publishes the counters and looks around when it is time, sleeps where there has been no work
  /// for long enough. Compiled for each driver so that turning needs nothing of the run-time system to call it.
  /// - Returns: false when the host should end.
  @inlinable @inline(never)
  mutating func pause(afterWork worked: Bool) throws(HostError) -> Bool {
    let now = monotonicNanoseconds()
    if now >= nextLook {
      nextLook = now + 10_000_000
      statistics.publish(paths)
      if try !look() { return false }
    }
    if worked { return true }
    if idleSince == 0 { idleSince = now }
    if mode.sleepsAfter(idleNanoseconds: now - idleSince) {
      statistics.publish(paths)
      sleep()
      idleSince = 0
    } else {
      cpu_pause()
    }
    return true
  }

  /// Sleeps until a doorbell, an interrupt, a message or 100 ms.
  @usableFromInline
  mutating func sleep() {
    var maySleep = true
    for index in 0..<paths.count where !paths[index].prepareToSleep() { maySleep = false }
    if maySleep {
      statistics.countSleep()
      let ready = descriptors.wait(milliseconds: 100)
      takeSignals()
      // A device process that has gone is noticed by its registers.
      if ready.device { configurationIsDue = true }
    }
    for index in 0..<paths.count { paths[index].wake() }
  }

  /// Empties the eventfds, so that the next sleep is one.
  private mutating func takeSignals() {
    let signals = descriptors.drainInterrupts()
    statistics.countInterrupts(signals.queues)
    if signals.configuration > 0 { configurationIsDue = true }
  }

  /// - Returns: false when the host should end.
  @usableFromInline
  mutating func look() throws(HostError) -> Bool {
    let ready = descriptors.poll()
    takeSignals()
    if ready.supervisor, !supervisor.mayGoOn() { return false }
    // The configuration is read when its interrupt says so, and now and then where there is none.
    looks &+= 1
    if !configurationIsDue && looks & 31 != 0 { return true }
    configurationIsDue = false
    statistics.publish(device: driver.readDeviceStatistics())
    var changed = false
    do throws(DriverError) {
      changed = try driver.handleConfigurationChange()
    } catch {
      guard setup.returning != nil, error.isLoss else { throw .driver(error) }
      return try awaitReturn(of: setup, after: error)
    }
    if changed, driver.interface != announced {
      announced = driver.interface
      supervisor.say("interface " + describe(announced))
    }
    return true
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

@usableFromInline
func monotonicNanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
