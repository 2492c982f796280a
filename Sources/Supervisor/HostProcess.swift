import CLinux
import Channel
import Driver
import Glibc
import Host
import Memory
import VFIO

/// The driver host of a run: its process, its control socket, and what it counts. One thread.
struct HostProcess: ~Copyable {
  let interface: InterfaceDescription
  private var process: ChildProcess
  private let control: ControlSocket
  private let page: CounterPage

  /// What a host is given beside its device.
  struct Resources {
    /// Command line options for its memory.
    var arguments: [String]
    var rings: Int32
    var arena: Int32
    /// -1 where there is no channel yet.
    var channel: Int32 = -1
    /// How host and instance wake each other; nil where there is no instance yet.
    var doorbells: InstanceDoorbells?
    var counterCapacity: Int
  }

  /// Starts it and waits until it has its device.
  static func start(
    _ plan: RunPlan, on access: any DeviceAccess, _ resources: Resources, trace: TraceFile? = nil
  ) throws(SupervisorError) -> HostProcess {
    let page = try asInput { () throws(MemoryError) -> CounterPage in
      try CounterPage(capacity: resources.counterCapacity)
    }
    var control = try ControlSocket()
    let process = try ChildProcess(
      name: "driver host", program: plan.hostProgram,
      arguments: [
        "--access", access.kind.rawValue, "--device-name", access.name,
        "--queues", "\(plan.queues)", "--ring-size", "\(plan.ringSize)",
        "--mode", plan.mode.rawValue, "--confined", plan.isConfined ? "yes" : "no",
        "--behind-iommu", access.kind == .vfio ? "yes" : "no",
        "--recorded", trace == nil ? "no" : "yes",
      ] + resources.arguments + (plan.mtu.map { ["--mtu", "\($0)"] } ?? [])
        + (plan.without.isEmpty ? [] : ["--without", plan.without.joined(separator: ",")])
        + (plan.cores.isEmpty
          ? [] : ["--cores", plan.cores.map(String.init).joined(separator: ",")]),
      descriptors: [
        -1, 1, 2, control.peer, access.descriptor, resources.rings, resources.arena,
        resources.channel, page.descriptor, trace?.hostEnd ?? -1,
      ] + (resources.doorbells.map { [$0.hostEnd] + $0.events } ?? []),
      isolation: plan.isConfined ? .everything : [])
    control.closePeer()
    trace?.closeHostEnd()
    let message = try control.awaitReady(of: "driver host", milliseconds: 10_000)
    return HostProcess(
      interface: try InterfaceDescription(message), process: process,
      control: control, page: page)
  }

  private init(
    interface: InterfaceDescription, process: consuming ChildProcess,
    control: consuming ControlSocket, page: consuming CounterPage
  ) {
    self.interface = interface
    self.process = process
    self.control = control
    self.page = page
  }

  var identifier: pid_t { process.identifier }
  var counters: [(name: String, value: UInt64)] { page.read() }
  /// Of the counter page.
  var counterDescriptor: Int32 { page.descriptor }

  /// What to watch.
  var descriptors: [Int32] { [process.descriptor, control.descriptor] }

  func send(_ text: String, descriptors: [Int32] = []) {
    control.send(text, descriptors: descriptors)
  }

  /// What it has said since the last time.
  /// - Throws: when it has said that it cannot go on.
  func news() throws(SupervisorError) -> [ControlMessage] { try control.news(of: "driver host") }

  /// - Throws: when it has ended.
  mutating func checkAlive() throws(SupervisorError) {
    if process.isOver {
      throw .ended(process: "driver host", how: process.end(withinMilliseconds: 0))
    }
  }

  /// Asks it to end.
  /// - Returns: what was not as it should be.
  mutating func stop() -> [String] {
    if process.hasEnded { return [] }
    control.send("stop")
    let end = process.end(withinMilliseconds: 3000)
    return end == .exited(0) ? [] : ["the driver host \(end)"]
  }
}

extension ChildProcess {
  /// Whether it has ended, waited for or not.
  var isOver: Bool { hasEnded || isReadable(descriptor) }
}

extension ControlSocket {
  /// Waits for a process's first word.
  func awaitReady(
    of process: String, milliseconds: Int32
  ) throws(SupervisorError) -> ControlMessage {
    guard
      let message = try receive(
        from: process, waitingFor: "that it is ready", milliseconds: milliseconds)
    else { throw .refused(process: process, reason: "it ended at its start") }
    guard message.word == "ready" else {
      throw SupervisorError(lastWord: message, of: process)
        ?? .refused(process: process, reason: message.rest)
    }
    return message
  }

  /// What a process has said since the last time.
  /// - Throws: when it has said that it cannot go on.
  func news(of process: String) throws(SupervisorError) -> [ControlMessage] {
    var news: [ControlMessage] = []
    // Bounded: a process that talks without end is not waited for.
    for _ in 0..<64 {
      guard isReadable(descriptor),
        let message = try receive(from: process, waitingFor: "anything", milliseconds: 0)
      else { break }
      if let error = SupervisorError(lastWord: message, of: process) { throw error }
      news.append(message)
    }
    return news
  }
}
