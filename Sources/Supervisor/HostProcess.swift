import CLinux
import Channel
import Driver
import Glibc
import Host
import Memory
import VFIO

/// One driver host: its process and its control socket. One thread.
final class HostProcess {
  let program: String
  private var process: ChildProcess
  private var control: ControlSocket
  private var lastEnd = ProcessEnd.killedBecauseItHung

  /// What every host of a run is given beside its device.
  struct Resources {
    /// Command line options for its memory.
    var arguments: [String]
    var rings: Int32
    var arena: Int32
    /// -1 where there is no channel yet.
    var channel: Int32 = -1
    /// How host and instance wake each other; nil where there is no instance yet.
    var doorbells: InstanceDoorbells?
    /// Its counter page.
    var counters: Int32 = -1
    /// What outlives it (``/Host/HostRecord``).
    var record: Int32 = -1
    /// What captures are written to, and how far they have been read.
    var capture: Int32 = -1
    var captureReaders: Int32 = -1
  }

  /// Which host of a run it is.
  enum Turn: String {
    case first
    /// A host before it had the same memory.
    case next
    /// The same, and it touches nothing before ``begin(on:)``.
    case standby
  }

  /// Starts it.
  init(
    _ plan: RunPlan, on access: any DeviceAccess, _ resources: Resources, _ turn: Turn,
    trace: TraceFile? = nil
  ) throws(SupervisorError) {
    control = try ControlSocket()
    program = plan.hostProgram
    process = try ChildProcess(
      name: "driver host", program: plan.hostProgram,
      arguments: [
        "--access", access.kind.rawValue, "--device-name", access.name,
        "--queues", "\(plan.queues)", "--ring-size", "\(plan.ringSize)",
        "--mode", plan.mode.rawValue, "--confined", plan.isConfined ? "yes" : "no",
        "--behind-iommu", access.kind == .vfio ? "yes" : "no",
        "--recorded", trace == nil ? "no" : "yes", "--turn", turn.rawValue,
      ] + resources.arguments + (plan.mtu.map { ["--mtu", "\($0)"] } ?? [])
        + (plan.without.isEmpty ? [] : ["--without", plan.without.joined(separator: ",")])
        + (plan.cores.isEmpty
          ? [] : ["--cores", plan.cores.map(String.init).joined(separator: ",")]),
      descriptors: [
        -1, 1, 2, control.peer, turn == .standby ? -1 : access.descriptor, resources.rings,
        resources.arena, resources.channel, resources.counters, trace?.hostEnd ?? -1,
        resources.record, resources.capture, resources.captureReaders,
      ] + (resources.doorbells.map { [$0.hostEnd] + $0.events } ?? []),
      isolation: plan.isConfined ? .everything : [], waits: turn != .standby)
    control.closePeer()
    trace?.closeHostEnd()
  }

  /// Becomes readable when one that is to stand by waits for ``admit()``; -1 where it does not.
  var gate: Int32 { process.gate }

  /// Lets it go on where it waits for that.
  func admit() throws(SupervisorError) { try process.admit() }

  /// One that stands by is to drive the device.
  func begin(on access: any DeviceAccess) {
    control.send("begin", descriptors: [access.descriptor])
  }

  /// Waits until it has its device.
  func awaitReady() throws(SupervisorError) -> InterfaceDescription {
    try InterfaceDescription(
      try control.awaitReady(of: "driver host", milliseconds: 10_000))
  }

  var identifier: pid_t { process.identifier }

  /// What to watch.
  var descriptors: [Int32] { [process.descriptor, control.descriptor] }

  func send(_ text: String, descriptors: [Int32] = []) {
    control.send(text, descriptors: descriptors)
  }

  /// What it has said since the last time.
  /// - Throws: when it has said that no host could go on.
  func news() throws(SupervisorError) -> [ControlMessage] { try control.news(of: "driver host") }

  /// Whether it has ended.
  var isOver: Bool { process.isOver }

  /// Ends it at once, where it has not ended.
  /// - Returns: how it has ended.
  @discardableResult
  func kill() -> ProcessEnd {
    if !process.hasEnded { lastEnd = process.end(withinMilliseconds: 0) }
    return lastEnd
  }

  /// Asks it to end.
  /// - Returns: what was not as it should be.
  func stop(withinMilliseconds limit: Int32) -> [String] {
    if process.hasEnded { return [] }
    control.send("stop")
    let end = process.end(withinMilliseconds: limit)
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
    else { throw .cannotStart(process, "it ended at its start") }
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
