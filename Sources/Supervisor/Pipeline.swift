import CLinux
import Channel
import Driver
import Glibc
import Host
import Memory
import PCI
import VFIO
import VhostUser

/// One NIC and one stack instance on it: device, memory, channel, driver host, instance. Started in this order, ended
/// in the reverse one.
public struct Pipeline: ~Copyable {
  public let access: any DeviceAccess
  public let interface: InterfaceDescription
  private var memory: DeviceMemory
  private var host: ChildProcess
  private var hostControl: ControlSocket
  private var instance: ChildProcess
  private var instanceControl: ControlSocket
  private let channel: ChannelMemory
  private let hostCounters: CounterPage
  private let instanceCounters: CounterPage
  public let memoryWarning: String?
  /// nil where the device cannot come back, or is there.
  private var reconnection: Reconnection?
  private var lastReconnection = Reconnection()

  /// Entries of an instance's counter page.
  public static let instanceCounterCapacity = 64
  private static let ringsBytes = 4 << 20

  /// - Parameters:
  ///   - tap: the kernel stack's interface; -1 for other stacks.
  ///   - trace: takes a record of all that passes between driver and device.
  public static func start(
    _ plan: RunPlan, on access: any DeviceAccess, tap: Int32 = -1, trace: TraceFile? = nil,
    instanceArguments: [String] = []
  ) throws(SupervisorError) -> Pipeline {
    let memory = try DeviceMemory.make(
      for: access, partBytes: plan.partBytes, ringsBytes: ringsBytes * max(1, plan.queues / 4),
      pageSize: plan.pageSize, usesVirtualAddresses: plan.usesVirtualAddresses)
    let placement =
      plan.usesVirtualAddresses
      ? ["--arena-address", "\(UInt(bitPattern: memory.arena.address))"] : []
    guard let layout = ChannelLayout(queues: plan.queues, slots: DriverHost.channelSlots) else {
      throw .input("\(plan.queues) queues are too many: at most 64")
    }
    let channel = try asInput { () throws(ChannelError) -> ChannelMemory in
      try ChannelMemory(layout: layout)
    }
    let hostCounters = try asInput { () throws(MemoryError) -> CounterPage in
      try CounterPage(capacity: DriverHost.counterCapacity(queues: plan.queues))
    }
    let instanceCounters = try asInput { () throws(MemoryError) -> CounterPage in
      try CounterPage(capacity: instanceCounterCapacity)
    }
    // One for each queue thread of the host, one for the instance's only thread.
    var bells: [Int32] = []
    defer { for bell in bells { close(bell) } }
    for _ in 0...plan.queues { bells.append(try event()) }
    let (instanceBell, hostBells) = (bells[0], Array(bells.dropFirst()))

    var hostControl = try ControlSocket()
    let host = try ChildProcess(
      name: "driver host", program: plan.hostProgram,
      arguments: [
        "--access", access.kind.rawValue, "--device-name", access.name,
        "--rings-iova", "\(memory.ringsIOVA)", "--rings-bytes", "\(memory.rings.byteCount)",
        "--arena-iova", "\(memory.arenaIOVA + (plan.fault == .dmaOutside ? 64 << 30 : 0))",
        "--arena-bytes", "\(memory.arena.byteCount)",
        "--receive-bytes", "\(memory.receiveBytes)", "--queues", "\(plan.queues)",
        "--ring-size", "\(plan.ringSize)", "--mode", plan.mode.rawValue,
        "--confined", plan.isConfined ? "yes" : "no",
        "--behind-iommu", access.kind == .vfio ? "yes" : "no",
        "--recorded", trace == nil ? "no" : "yes",
      ] + placement + (plan.mtu.map { ["--mtu", "\($0)"] } ?? [])
        + (plan.without.isEmpty ? [] : ["--without", plan.without.joined(separator: ",")])
        + (plan.cores.isEmpty
          ? [] : ["--cores", plan.cores.map(String.init).joined(separator: ",")]),
      descriptors: [
        -1, 1, 2, hostControl.peer, access.descriptor, memory.rings.descriptor,
        memory.arena.descriptor, channel.descriptor, hostCounters.descriptor,
        trace?.hostEnd ?? -1, instanceBell,
      ] + hostBells, isolation: plan.isConfined ? .everything : [])
    hostControl.closePeer()
    trace?.closeHostEnd()
    let message = try awaitReady(hostControl, of: "driver host", milliseconds: 10_000)
    let interface = try InterfaceDescription(message)

    var instanceControl = try ControlSocket()
    var arguments = [
      "--address", plan.address.description,
      "--http", "\(plan.httpPort)", "--mode", plan.mode.rawValue,
    ]
    if let gateway = plan.gateway { arguments += ["--gateway", gateway] }
    if tap >= 0 { arguments += ["--tap", "4"] }
    let instance = try ChildProcess(
      name: "stack instance", program: plan.stack.program,
      arguments: plan.stack.arguments + arguments + instanceArguments,
      descriptors: [-1, 1, 2, instanceControl.peer, tap],
      // An instance needs no right at all: as root it becomes nobody.
      isolation: geteuid() == 0 ? .user : [])
    let welcome = Welcome(
      id: 0 | 1 << 8, macAddress: interface.macAddress.array, mtu: interface.mtu,
      offloads: interface.offloads, queues: interface.queues, channel: layout,
      receiveBytes: memory.receiveBytes, arenaBytes: memory.arena.byteCount,
      maximumBytes: memory.arena.byteCount, use: .exclusive,
      arenaAddress: plan.usesVirtualAddresses ? UInt(bitPattern: memory.arena.address) : nil)
    instanceControl.send(
      welcome.text,
      // In the order of InstanceDescriptor.
      descriptors: [
        memory.arena.descriptor, channel.descriptor, instanceCounters.descriptor, instanceBell,
      ] + hostBells.prefix(interface.queues))
    instanceControl.closePeer()
    _ = try awaitReady(instanceControl, of: "stack instance", milliseconds: 10_000)
    return Pipeline(
      access: access, interface: interface, host: host, hostControl: hostControl,
      instance: instance, instanceControl: instanceControl, hostCounters: hostCounters,
      instanceCounters: instanceCounters, memory: memory, channel: channel)
  }

  private init(
    access: any DeviceAccess, interface: InterfaceDescription, host: consuming ChildProcess,
    hostControl: consuming ControlSocket, instance: consuming ChildProcess,
    instanceControl: consuming ControlSocket, hostCounters: consuming CounterPage,
    instanceCounters: consuming CounterPage, memory: consuming DeviceMemory,
    channel: consuming ChannelMemory
  ) {
    self.access = access
    self.interface = interface
    self.host = host
    self.hostControl = hostControl
    self.instance = instance
    self.instanceControl = instanceControl
    self.hostCounters = hostCounters
    self.instanceCounters = instanceCounters
    memoryWarning = memory.warning
    self.memory = memory
    self.channel = channel
  }

  public var hostIdentifier: pid_t { host.identifier }
  public var instanceIdentifier: pid_t { instance.identifier }

  /// What to watch: when one becomes readable, ``check()`` says why.
  public var descriptors: [Int32] {
    [host.descriptor, hostControl.descriptor, instance.descriptor, instanceControl.descriptor]
  }

  /// Reads what the processes have said since the last time.
  /// - Returns: news for the log.
  /// - Throws: when a process has ended or has said that it cannot go on.
  public mutating func check() throws(SupervisorError) -> [String] {
    var news: [String] = []
    for message in try Self.news(of: "driver host", hostControl) { news.append(note(message)) }
    for message in try Self.news(of: "stack instance", instanceControl) {
      news.append("stack instance: \(message.word) \(message.rest)")
    }
    if Self.hasEnded(host) {
      throw .ended(process: "driver host", how: host.end(withinMilliseconds: 0))
    }
    if Self.hasEnded(instance) {
      throw .ended(process: "stack instance", how: instance.end(withinMilliseconds: 0))
    }
    return news
  }

  /// What the driver host says of its device is acted on; all else is news only.
  private mutating func note(_ message: ControlMessage) -> String {
    switch message.word {
    case "gone" where access is VhostUserAccess:
      lastReconnection.begin(at: RunSession.now())
      reconnection = lastReconnection
      return "\(access.name) is gone (\(message.rest)): the run waits for its return"
    case "returned":
      lastReconnection.end(at: RunSession.now())
      return "\(access.name) is back: the driver goes on"
    default: return "driver host: \(message.word) \(message.rest)"
    }
  }

  /// When the next attempt to reach a device that has gone is due, in milliseconds of the monotonic clock.
  var reconnectionDue: UInt64? { reconnection?.due }

  /// Tries to reach the device again, and hands the new socket to the driver host.
  mutating func attemptReconnection() {
    guard let back = access as? VhostUserAccess else { return }
    do throws(PCIError) {
      try back.reconnect()
      reconnection = nil
      hostControl.send("device", descriptors: [back.descriptor])
    } catch {
      lastReconnection.postpone(at: RunSession.now())
      reconnection = lastReconnection
    }
  }

  /// Counters of host and instance, by name.
  public var counters: [(name: String, value: UInt64)] {
    hostCounters.read() + instanceCounters.read()
  }

  /// Becomes readable when the instance ends by itself, as one with a client's task does.
  public var instanceDescriptor: Int32 { instance.descriptor }
  public mutating func instanceEnd() -> ProcessEnd { instance.end(withinMilliseconds: 0) }

  /// Ends instance, host and device use, in this order.
  /// - Returns: what did not end as it should.
  public mutating func stop() -> [String] {
    var complaints: [String] = []
    if !instance.hasEnded {
      channel.askToEnd()
      instanceControl.send("stop")
      let end = instance.end(withinMilliseconds: 2000)
      if end != .exited(0) { complaints.append("the stack instance \(end)") }
    }
    if !host.hasEnded {
      hostControl.send("stop")
      let end = host.end(withinMilliseconds: 3000)
      if end != .exited(0) { complaints.append("the driver host \(end)") }
    }
    do throws(PCIError) {
      try memory.release()
    } catch {
      complaints.append("\(access.name) could not be made quiet: \(error)")
    }
    return complaints
  }

  private static func hasEnded(_ process: borrowing ChildProcess) -> Bool {
    var entry = pollfd(fd: process.descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) > 0
  }

  private static func news(
    of process: String, _ control: borrowing ControlSocket
  ) throws(SupervisorError) -> [ControlMessage] {
    var news: [ControlMessage] = []
    // Bounded: a process that talks without end is not waited for.
    for _ in 0..<16 {
      var entry = pollfd(fd: control.descriptor, events: Int16(POLLIN), revents: 0)
      guard poll(&entry, 1, 0) > 0 else { break }
      guard
        let message = try control.receive(from: process, waitingFor: "anything", milliseconds: 0)
      else { break }
      if message.word == "error" { throw .refused(process: process, reason: message.rest) }
      news.append(message)
    }
    return news
  }

  private static func awaitReady(
    _ control: borrowing ControlSocket, of process: String, milliseconds: Int32
  ) throws(SupervisorError) -> ControlMessage {
    guard
      let message = try control.receive(
        from: process, waitingFor: "that it is ready", milliseconds: milliseconds)
    else { throw .refused(process: process, reason: "it ended at its start") }
    guard message.word == "ready" else {
      throw .refused(process: process, reason: message.rest)
    }
    return message
  }

  private static func event() throws(SupervisorError) -> Int32 {
    let descriptor = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
    guard descriptor >= 0 else { throw .system("eventfd", errno) }
    return descriptor
  }
}

/// The interface as the driver host describes it. The host is not trusted: every value is checked.
public struct InterfaceDescription: Sendable {
  public var macAddress: MACAddress
  public var mtu: Int
  public var queues: Int
  public var offloads: UInt32
  public var linkIsUp: Bool
  public var features: [String]

  init(_ message: ControlMessage) throws(SupervisorError) {
    guard let mac = message["mac"].flatMap(MACAddress.init),
      let mtu = message["mtu"].flatMap(Int.init),
      (68...65535).contains(mtu), let queues = message["queues"].flatMap(Int.init),
      (1...64).contains(queues), let offloads = message["offloads"].flatMap(UInt32.init)
    else { throw .refused(process: "driver host", reason: "it describes no interface") }
    macAddress = mac
    self.mtu = mtu
    self.queues = queues
    self.offloads = offloads
    linkIsUp = message["link"] == "up"
    features = (message["features"] ?? "").split(separator: ",").map(String.init)
  }
}
