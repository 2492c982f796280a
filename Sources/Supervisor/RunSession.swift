import CLinux
import Glibc

/// Everything that one `martlet run` has started. When it goes away, so does all of it.
public struct RunSession: ~Copyable {
  public private(set) var pipeline: Pipeline
  private let device: RunDevice
  /// Where the kernel stack's interface is, with an emulated device.
  public let stackNamespace: NetworkNamespace?
  private let termination: Int32
  private let report: (String) -> Void
  private let eachSecond: (borrowing RunSession) -> Void
  private var nextSecond: UInt64

  public enum Outcome: Equatable { case ready, interrupted, timedOut }

  /// Starts device, driver host and stack instance.
  /// - Parameters:
  ///   - trace: takes a record of the driver host's run.
  ///   - report: gets a line whenever there is news.
  ///   - eachSecond: called about once a second while the session waits.
  public static func start(
    _ plan: RunPlan, trace: TraceFile? = nil, report: @escaping (String) -> Void,
    eachSecond: @escaping (borrowing RunSession) -> Void
  ) throws(SupervisorError) -> RunSession {
    let termination = linux_termination_descriptor()
    guard termination >= 0 else { throw .system("signalfd", -termination) }
    let device = try RunDevice.open(
      plan, farEndAddress: plan.address.neighbour.description, report: report)
    var stackNamespace: NetworkNamespace?
    var tap: Int32 = -1
    if plan.stack == .kernel {
      if plan.emulatedModel != nil {
        let near = try NetworkNamespace.make(
          interface: "martlet1", addresses: [plan.address.description])
        tap = near.tap
        stackNamespace = near
      } else {
        tap = try KernelInterface.open(name: "martlet0")
      }
    }
    let pipeline = try Pipeline.start(plan, on: device.access, tap: tap, trace: trace)
    if plan.stack == .kernel {
      if let stackNamespace {
        try stackNamespace.setAddress(pipeline.interface.macAddress.description)
      } else {
        try KernelInterface.configure(name: "martlet0", plan, pipeline.interface)
      }
    }
    return RunSession(
      pipeline: pipeline, device: device, stackNamespace: stackNamespace,
      termination: termination, report: report, eachSecond: eachSecond)
  }

  private init(
    pipeline: consuming Pipeline, device: RunDevice, stackNamespace: NetworkNamespace?,
    termination: Int32, report: @escaping (String) -> Void,
    eachSecond: @escaping (borrowing RunSession) -> Void
  ) {
    self.pipeline = pipeline
    self.device = device
    self.stackNamespace = stackNamespace
    self.termination = termination
    self.report = report
    self.eachSecond = eachSecond
    nextSecond = Self.now() + 1000
  }

  public var deviceIdentifier: pid_t? { device.process?.identifier }
  /// The far end of an emulated wire.
  public var namespace: NetworkNamespace? { device.namespace }

  /// All counters by name: device, host, instance.
  public var counters: [(name: String, value: UInt64)] {
    device.counters + pipeline.counters + [("iommu_faults", device.faults)]
  }

  /// Waits until a descriptor is readable, a signal asks for the end, or time is up, and watches all processes
  /// meanwhile.
  /// - Parameter descriptor: -1 for none.
  /// - Throws: when one of the processes ends or says that it cannot go on.
  public mutating func wait(
    for descriptor: Int32, milliseconds limit: UInt64
  ) throws(SupervisorError) -> Outcome {
    let end = Self.now() + limit
    while true {
      var entries = pipeline.descriptors.map(Self.entry)
      entries += device.descriptors.map(Self.entry)
      entries.append(Self.entry(stackNamespace?.descriptor ?? -1))
      entries.append(Self.entry(termination))
      entries.append(Self.entry(descriptor))
      let now = Self.now()
      if now >= nextSecond {
        eachSecond(self)
        nextSecond = max(nextSecond + 1000, now + 500)
      }
      if now >= end { return .timedOut }
      if let due = pipeline.reconnectionDue, now >= due { pipeline.attemptReconnection() }
      let next = min(end, nextSecond, pipeline.reconnectionDue ?? .max)
      let count = poll(&entries, UInt(entries.count), Int32(next - min(next, now)))
      if count <= 0 { continue }
      let last = entries.count - 1
      if entries[last - 1].revents != 0 { return .interrupted }
      for line in try device.check() { report(line) }
      if entries[last - 2].revents != 0 {
        throw .ended(process: "namespace holder", how: stackNamespace?.end() ?? .exited(0))
      }
      for line in try pipeline.check() { report(line) }
      if entries[last].revents != 0 { return .ready }
    }
  }

  /// Ends everything in order: instance, host, device.
  /// - Returns: what did not end as it should.
  public mutating func stop() -> [String] {
    pipeline.stop() + device.stop()
  }

  private static func entry(_ descriptor: Int32) -> pollfd {
    pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  }

  static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
  }
}
