import CLinux
import Capture
import Channel
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
  let host: HostLife
  private var instance: ChildProcess
  private var instanceControl: ControlSocket
  private let channel: ChannelMemory
  /// Held so that the instance does not take the driver host's end for its own.
  private let doorbells: InstanceDoorbells
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
    let instanceCounters = try asInput { () throws(MemoryError) -> CounterPage in
      try CounterPage(capacity: instanceCounterCapacity)
    }
    let doorbells = try InstanceDoorbells(queues: plan.queues)
    let host = try HostLife(
      plan, on: access,
      HostProcess.Resources(
        arguments: [
          "--rings-iova", "\(memory.ringsIOVA)", "--rings-bytes", "\(memory.rings.byteCount)",
          "--arena-iova", "\(memory.arenaIOVA + (plan.fault == .dmaOutside ? 64 << 30 : 0))",
          "--arena-bytes", "\(memory.arena.byteCount)",
          "--receive-bytes", "\(memory.receiveBytes)",
        ] + placement,
        rings: memory.rings.descriptor, arena: memory.arena.descriptor,
        channel: channel.descriptor, doorbells: doorbells),
      receiveBytes: memory.receiveBytes,
      counterCapacity: DriverHost.counterCapacity(queues: plan.queues), trace: trace)
    let interface = host.interface
    host.captures.note(instance: CaptureTap.onlyInstance, name: plan.stack.rawValue)

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
        memory.arena.descriptor, channel.descriptor, instanceCounters.descriptor,
        doorbells.instanceEnd,
      ] + doorbells.events.prefix(interface.queues))
    instanceControl.closePeer()
    _ = try instanceControl.awaitReady(of: "stack instance", milliseconds: 10_000)
    doorbells.closeGivenAway()
    return Pipeline(
      access: access, interface: interface, host: host, instance: instance,
      instanceControl: instanceControl, instanceCounters: instanceCounters, memory: memory,
      channel: channel, doorbells: doorbells)
  }

  private init(
    access: any DeviceAccess, interface: InterfaceDescription, host: HostLife,
    instance: consuming ChildProcess, instanceControl: consuming ControlSocket,
    instanceCounters: consuming CounterPage, memory: consuming DeviceMemory,
    channel: consuming ChannelMemory, doorbells: InstanceDoorbells
  ) {
    self.access = access
    self.interface = interface
    self.host = host
    self.instance = instance
    self.instanceControl = instanceControl
    self.instanceCounters = instanceCounters
    memoryWarning = memory.warning
    self.memory = memory
    self.channel = channel
    self.doorbells = doorbells
  }

  public var hostIdentifier: pid_t { host.identifier }
  public var instanceIdentifier: pid_t { instance.identifier }

  /// What to watch: when one becomes readable, ``check()`` says why.
  public var descriptors: [Int32] {
    host.descriptors + [instance.descriptor, instanceControl.descriptor]
  }

  /// Reads what the processes have said since the last time.
  /// - Returns: news for the log.
  /// - Throws: when a process has ended or has said that it cannot go on.
  public mutating func check() throws(SupervisorError) -> [String] {
    var news = note(try host.check(at: RunSession.now()))
    for message in try instanceControl.news(of: "stack instance") {
      news.append("stack instance: \(message.word) \(message.rest)")
    }
    if instance.isOver {
      throw .ended(process: "stack instance", how: instance.end(withinMilliseconds: 0))
    }
    return news
  }

  private mutating func note(_ events: [HostLife.Event]) -> [String] {
    events.compactMap {
      switch $0 {
      case .said(let message): return note(message)
      case .news(let line): return line
      case .restarted:
        // The device is there, whatever the host before has said of it.
        reconnection = nil
        instanceControl.send("restarted")
        return nil
      }
    }
  }

  /// Puts another driver host in place of the one that there is, which is well.
  /// - Parameter program: what it and those after it run; nil for the same as before.
  /// - Returns: news for the log.
  public mutating func restartHost(program: String? = nil) throws(SupervisorError) -> [String] {
    note(try host.restart(program: program, at: RunSession.now()))
  }

  /// The IOMMU has stopped the device: what the driver told it cannot be trusted.
  mutating func noteIOMMUFault() throws(SupervisorError) -> [String] {
    note(
      try host.fail(.iommuFault, .device("the IOMMU has stopped the device"), at: RunSession.now()))
  }

  /// The last driver host that has taken the place of another one; nil where the first one is there.
  public var lastRestart: HostRestart? { host.lastRestart }
  /// What the threads of the driver host show of themselves.
  public var hostSigns: HostSigns { host.signs }

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

  /// When ``check()`` is due at the latest, in milliseconds of the monotonic clock.
  var due: UInt64 { host.due }
  /// When the next attempt to reach a device that has gone is due, in milliseconds of the monotonic clock.
  var reconnectionDue: UInt64? { reconnection?.due }

  /// Tries to reach the device again, and hands the new socket to the driver host.
  mutating func attemptReconnection() {
    guard let back = access as? VhostUserAccess else { return }
    do throws(PCIError) {
      try back.reconnect()
      reconnection = nil
      host.send("device", descriptors: [back.descriptor])
    } catch {
      lastReconnection.postpone(at: RunSession.now())
      reconnection = lastReconnection
    }
  }

  /// Counters of host and instance, by name.
  public var counters: [(name: String, value: UInt64)] {
    host.counters + instanceCounters.read()
  }

  /// Adds the pages in which host and instance count.
  func add(to handout: inout CounterHandout) {
    host.add(to: &handout)
    handout.add(instanceCounters, "of=instance pid=\(instanceIdentifier)")
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
    complaints += host.stop()
    do throws(PCIError) {
      try memory.release()
    } catch {
      complaints.append("\(access.name) could not be made quiet: \(error)")
    }
    return complaints
  }
}
