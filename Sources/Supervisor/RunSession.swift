import CLinux
import Glibc

/// Everything that one `martlet run` has started. When it goes away, so does all of it.
public struct RunSession: ~Copyable {
  public private(set) var pipeline: Pipeline
  private let device: RunDevice
  /// Where the kernel stack's interface is, with an emulated device.
  public let stackNamespace: NetworkNamespace?
  private let termination: Int32
  private let control: RunControl?
  private let restartsOnIOMMUFault: Bool
  private let report: (String) -> Void
  private let eachSecond: (borrowing RunSession) -> Void
  private var nextSecond: UInt64
  /// nil where nobody can ask for it.
  private let published: SupervisorCounters?
  private let summary: String

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
    // Before anything is started: most of what can be wrong is wrong with the socket.
    var control: RunControl?
    if let path = plan.controlPath { control = try RunControl(path: path) }
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
      termination: termination, control: control,
      published: control == nil ? nil : try SupervisorCounters(), plan: plan, report: report,
      eachSecond: eachSecond)
  }

  private init(
    pipeline: consuming Pipeline, device: RunDevice, stackNamespace: NetworkNamespace?,
    termination: Int32, control: RunControl?, published: SupervisorCounters?, plan: RunPlan,
    report: @escaping (String) -> Void, eachSecond: @escaping (borrowing RunSession) -> Void
  ) {
    self.control = control
    self.published = published
    summary = plan.summary(pipeline.interface, of: device.access)
    restartsOnIOMMUFault = plan.restartsOnIOMMUFault
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

  /// What the supervisor counts itself.
  private var ownCounters: [(name: String, value: UInt64)] {
    pipeline.host.ownCounters + device.ownCounters
  }

  /// Hands the pages that the counters are in to who has asked for them.
  private func hand(to connection: PeerConnection) {
    published?.publish(ownCounters)
    var handout = CounterHandout(summary)
    published?.add(to: &handout)
    device.process?.add(to: &handout)
    pipeline.add(to: &handout)
    handout.say(to: connection)
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
      var watched = pipeline.descriptors + device.descriptors
      watched += [stackNamespace?.descriptor ?? -1] + (control?.descriptors ?? [])
      watched += [termination, descriptor]
      var entries = watched.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
      let now = Self.now()
      if now >= nextSecond {
        eachSecond(self)
        published?.publish(ownCounters)
        nextSecond = max(nextSecond + 1000, now + 500)
      }
      if now >= end { return .timedOut }
      if let due = pipeline.reconnectionDue, now >= due { pipeline.attemptReconnection() }
      let next = min(end, nextSecond, pipeline.due, pipeline.reconnectionDue ?? .max)
      let count = poll(&entries, UInt(entries.count), Int32(next - min(next, now)))
      if count <= 0 && Self.now() < pipeline.due { continue }
      if count > 0 && entries[entries.count - 2].revents != 0 { return .interrupted }
      try checkAll()
      if count > 0 && entries[entries.count - 1].revents != 0 { return .ready }
    }
  }

  private mutating func checkAll() throws(SupervisorError) {
    let faults = device.faults
    for line in try device.check() { report(line) }
    if restartsOnIOMMUFault, device.faults != faults {
      for line in try pipeline.noteIOMMUFault() { report(line) }
    }
    if let stackNamespace, isReadable(stackNamespace.descriptor) {
      throw .ended(process: "namespace holder", how: stackNamespace.end())
    }
    for line in try pipeline.check() { report(line) }
    let requests =
      control?.step(
        { counters }, hand: { hand(to: $0) }, pipeline.host.captures, at: Self.now()) ?? []
    for request in requests {
      for line in try pipeline.restartHost(program: request.restart.program) { report(line) }
      request.connection.say(pipeline.lastRestart, host: pipeline.hostIdentifier)
    }
  }

  /// Ends everything in order: instance, host, device.
  /// - Returns: what did not end as it should.
  public mutating func stop() -> [String] {
    pipeline.stop() + device.stop()
  }

  static func now() -> UInt64 { monotonic_milliseconds() }
}
