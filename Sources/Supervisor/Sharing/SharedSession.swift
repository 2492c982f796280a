import CLinux
import Channel
import Glibc
import Handles
import Host
import Memory
import PCI
import Steering
import VFIO

/// Everything that one `martlet run --share` has started: device, driver host, and a socket where instances come and go.
/// When it goes away, so does all of it.
public struct SharedSession: ~Copyable {
  private let device: RunDevice
  private let memory: SharedMemory
  private let path: HostPath
  private let server: SharingServer
  private let socket: SharingSocket
  private let handleSocket: SharingSocket
  private let termination: Int32
  private let report: (String) -> Void
  private let first: FirstInstance?
  private let restartsOnIOMMUFault: Bool

  /// - Parameters:
  ///   - policy: who may attach.
  ///   - rules: which packets go where before claims decide.
  ///   - report: gets a line whenever there is news.
  public static func start(
    _ plan: RunPlan, socket path: String, policy: Policy, rules: RuleSet? = nil,
    report: @escaping (String) -> Void
  ) throws(SupervisorError) -> SharedSession {
    allowManyDescriptors()
    let termination = linux_termination_descriptor()
    guard termination >= 0 else { throw .system("signalfd", -termination) }
    // Before anything is started: most of what can be wrong is wrong with the socket.
    let socket = try SharingSocket(path: path, policy)
    let handleSocket = try SharingSocket(path: path + ".handles", policy)
    let handles = try makeBroker(on: handleSocket.descriptor, policy)
    let device = try RunDevice.open(
      plan, farEndAddress: plan.address.neighbour.description, report: report)
    let memory = try SharedMemory.make(
      for: device.access, plan, largestInstance: policy.largestInstance)
    let host = try HostLife(
      plan, on: device.access,
      HostProcess.Resources(
        arguments: [
          "--rings-iova", "\(memory.ringsIOVA)", "--rings-bytes", "\(memory.rings.byteCount)",
          "--arena-iova", "\(memory.windowIOVA)", "--arena-bytes", "\(memory.arena.byteCount)",
          "--receive-bytes", "\(memory.receiveBytes)", "--shared", "yes",
          "--window-bytes", "\(memory.windowBytes)",
        ], rings: memory.rings.descriptor, arena: memory.arena.descriptor),
      receiveBytes: 0,
      counterCapacity: DriverHost.counterCapacity(queues: plan.queues, isShared: true))
    let interface = host.interface
    let commands = try InstanceCommands(
      interface, hostQueues: plan.queues, counters: dup(host.counterDescriptor))
    let hostPath = HostPath(host, device.access)
    let server = SharingServer(
      policy: policy, listener: socket.descriptor, path: hostPath, interface: interface,
      window: WindowPlan(byteCount: memory.windowBytes, hostBytes: memory.arena.byteCount),
      windowIOVA: memory.windowIOVA, keeper: memory.keeper, hasHugePages: memory.hasHugePages,
      commands: commands, handles: handles,
      captures: host.captures, report: report)
    host.onReset = { [weak server] in server?.noteHostGone(at: RunSession.now()) }
    server.hostBytes = memory.arena.byteCount + memory.rings.byteCount
    // Captured by what the server has: without the server, nothing is asked for.
    let ownCounters: () -> [(name: String, value: UInt64)] = { [weak server] in
      hostPath.host.ownCounters + commands.counters + device.ownCounters
        + handles.counters.map { (name: "handles_" + $0.name, value: $0.value) }
        + (server?.stages?.counters ?? [])
    }
    server.counters = { device.counters + hostPath.host.pageCounters + ownCounters() }
    server.publication = CounterPublication(
      page: try SupervisorCounters(), summary: plan.summary(interface, of: device.access),
      counters: ownCounters,
      addPages: { handout in
        device.process?.add(to: &handout)
        hostPath.host.add(to: &handout)
      })
    if !policy.stages.isEmpty {
      host.captures.stages = policy.stages.map(\.name)
      server.stages = try StageService(
        policy.stages, plan, interface, path: hostPath,
        arena: (memory.arena.descriptor, memory.arena.byteCount), report: report,
        at: RunSession.now())
    }
    if let rules {
      do throws(RuleError) {
        try server.set(rules)
      } catch {
        throw .input("rules: \(error)")
      }
      server.tellOfRules()
    }
    var first: FirstInstance?
    if plan.stack != .none {
      first = try FirstInstance.start(plan, interface) { socket in
        guard let connection = server.adopt(socket, at: RunSession.now()) else { return false }
        connection.isIdentified = false
        return true
      }
    }
    return SharedSession(
      device: device, memory: memory, path: hostPath, server: server, socket: socket,
      handleSocket: handleSocket, first: first, termination: termination, plan: plan,
      report: report)
  }

  /// Each extent of each instance has one.
  private static func allowManyDescriptors() {
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }

  private init(
    device: RunDevice, memory: consuming SharedMemory, path: HostPath, server: SharingServer,
    socket: consuming SharingSocket, handleSocket: consuming SharingSocket, first: FirstInstance?,
    termination: Int32, plan: RunPlan,
    report: @escaping (String) -> Void
  ) {
    restartsOnIOMMUFault = plan.restartsOnIOMMUFault
    self.device = device
    self.memory = memory
    self.path = path
    self.server = server
    self.socket = socket
    self.handleSocket = handleSocket
    self.first = first
    self.termination = termination
    self.report = report
  }

  deinit { close(termination) }

  /// The broker of memory handles, for all users that the policy names.
  private static func makeBroker(
    on socket: Int32, _ policy: Policy
  ) throws(SupervisorError) -> HandleService {
    var limits = HandleBroker.Limits()
    limits.connectionsPerUser = policy.connectionsPerUser
    do throws(HandleError) {
      let service = try HandleService(limits: limits)
      service.listen(on: socket, users: policy.everybody)
      return service
    } catch {
      throw .input("\(error)")
    }
  }

  public var interface: InterfaceDescription { server.interface }
  public var hostIdentifier: pid_t { path.host.identifier }
  public var deviceIdentifier: pid_t? { device.process?.identifier }
  /// The far end of an emulated wire.
  public var namespace: NetworkNamespace? { device.namespace }
  /// Where the kernel stack's interface is, with an emulated device.
  public var stackNamespace: NetworkNamespace? { first?.namespace }
  /// Instances that there are.
  public var instances: [InstanceRecord] { server.records }
  /// All counters by name: device, host, and what has happened on the socket.
  public var counters: [(name: String, value: UInt64)] {
    server.counters() + server.counts.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
  }

  /// Serves until a signal asks for the end or time is up.
  /// - Throws: when a process has ended that the run cannot do without, or says that it cannot go on.
  public func serve(milliseconds limit: UInt64) throws(SupervisorError) {
    let end = RunSession.now() + min(limit, .max / 4)
    while true {
      let now = RunSession.now()
      if now >= end { return }
      if try turn(until: end, termination) { return }
    }
  }

  /// One look at everything, and a wait before it where there is nothing.
  /// - Parameter signal: readable when a signal asks for the end; -1 where that is known.
  /// - Returns: whether one does.
  private func turn(until end: UInt64, _ signal: Int32) throws(SupervisorError) -> Bool {
    let isBusy = server.serveCommands(at: RunSession.now())
    let now = RunSession.now()
    let watched =
      [signal] + path.host.descriptors + device.descriptors + server.descriptors(at: now)
    var entries = watched.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    entries.append(
      pollfd(fd: server.pressure.descriptor, events: Int16(POLLPRI), revents: 0))
    // Huge pages that a process still had when it was let go of are looked for once a second.
    let next = min(end, server.deadline ?? .max, now + 1000, path.host.due)
    let mayWait = !isBusy && server.commands.prepareToSleep()
    _ = poll(&entries, UInt(entries.count), mayWait ? Int32(next - min(next, now)) : 0)
    if entries[0].revents != 0 { return true }
    if entries[entries.count - 1].revents & Int16(POLLPRI) != 0 {
      server.notePressure(at: RunSession.now())
    }
    let faults = device.faults
    for line in try device.check() { report(line) }
    if restartsOnIOMMUFault, device.faults != faults {
      note(
        try path.host.fail(
          .iommuFault, .device("the IOMMU has stopped the device"), at: RunSession.now()))
    }
    note(try path.host.check(at: RunSession.now()))
    server.step(at: RunSession.now())
    try restartWhereAsked()
    return false
  }

  private func restartWhereAsked() throws(SupervisorError) {
    let restarts = server.restarts
    server.restarts = []
    for (connection, request) in restarts {
      note(try path.host.restart(program: request.program, at: RunSession.now()))
      connection.say(path.host.lastRestart, host: path.host.identifier)
    }
  }

  private func note(_ events: [HostLife.Event]) {
    for event in events {
      switch event {
      case .said(let message):
        if message.word == "interface" { server.commands.note(message) }
        if !server.hear(host: message, at: RunSession.now()) {
          report("driver host: \(message.word) \(message.rest)")
        }
      case .news(let line): report(line)
      case .restarted: server.restore(at: RunSession.now())
      }
    }
  }

  /// Stages pass on what they have; what they do not give back, the host takes when they are gone.
  private func endStages() -> [String] {
    guard let stages = server.stages else { return [] }
    stages.close()
    for limit: UInt64 in [500, 1000] {
      let end = RunSession.now() + limit
      while !stages.areDown, RunSession.now() < end {
        do throws(SupervisorError) {
          _ = try turn(until: min(end, RunSession.now() + 20), -1)
        } catch {
          return ["\(error)"]
        }
      }
      stages.endAll(at: RunSession.now())
    }
    return stages.areDown ? [] : ["the driver host has not let go of all stages"]
  }

  /// Ends everything in order: instances, stages, host, device.
  /// - Returns: what did not end as it should.
  public mutating func stop() -> [String] {
    var complaints: [String] = []
    server.close()
    // Each instance gets a moment to end by itself, and then is let go of.
    for limit in [SharingServer.readyLimit / 5, SharingServer.hostLimit + 500] {
      let end = RunSession.now() + limit
      while !server.records.isEmpty, !server.areAllStuck, RunSession.now() < end {
        do throws(SupervisorError) {
          _ = try turn(until: end, -1)
        } catch {
          complaints.append("\(error)")
          break
        }
      }
      server.leaveAll("the run ends", at: RunSession.now())
    }
    complaints += first?.end() ?? []
    complaints += endStages()
    complaints += path.host.stop()
    do throws(PCIError) {
      try memory.release(
        server.mappedMemory)
    } catch {
      complaints.append("\(device.access.name) could not be made quiet: \(error)")
    }
    complaints += server.records.map { "instance \($0.id) was never let go of" }
    return complaints + device.stop()
  }
}
