import CLinux
import Channel
import Glibc
import Host
import Memory
import PCI
import VFIO

/// The driver host of a run, whichever process it is just now: where one fails, the device is reset and another one goes on
/// with the same memory, channels, doorbells, counters and record. One thread.
final class HostLife {
  let interface: InterfaceDescription
  private var plan: RunPlan
  private let access: any DeviceAccess
  private let resources: HostProcess.Resources
  private let standby: StandbyHost
  private let page: CounterPage
  private let record: HostRecord
  /// Who captures packets.
  let captures: CaptureService
  private var reserve = DescriptorReserve()
  /// nil while there is none.
  private var process: HostProcess?
  private var startedAt: UInt64
  private var backOff: RestartBackOff
  private var watch: HeartbeatWatch
  private var pending: PendingRestart?
  private var counts: [RestartReason: UInt64] = [:]
  /// The last one that has been done.
  private(set) var lastRestart: HostRestart?
  /// Called when the device has been reset and before it learns of its memory again.
  var onReset: () -> Void = {}

  private struct PendingRestart {
    var restart: HostRestart
    /// In milliseconds of the monotonic clock.
    var due: UInt64
    /// The program to go back to where a new one does not start.
    var formerProgram: String?
  }

  /// What has happened.
  enum Event {
    /// The host has said something.
    case said(ControlMessage)
    /// For the log.
    case news(String)
    /// Another host is in place.
    case restarted
  }

  /// Starts the first one and waits until it has its device.
  /// - Parameters:
  ///   - receiveBytes: of the only instance's receive segments; 0 where many share the function.
  ///   - counterCapacity: entries of the host's counter page.
  ///   - trace: takes a record of the run; such a run ends with its host.
  init(
    _ plan: RunPlan, on access: any DeviceAccess, _ resources: HostProcess.Resources,
    receiveBytes: Int, counterCapacity: Int, trace: TraceFile? = nil
  ) throws(SupervisorError) {
    let page = try asInput { () throws(MemoryError) -> CounterPage in
      try CounterPage(
        capacity: counterCapacity, histograms: DriverHost.histograms(queues: plan.queues))
    }
    let record = try asInput { () throws(MemoryError) -> HostRecord in
      try HostRecord(queues: plan.queues, receiveBytes: receiveBytes)
    }
    var resources = resources
    resources.counters = page.descriptor
    resources.record = record.descriptor
    let captures = try asInput { () throws(MemoryError) -> CaptureService in
      try CaptureService(queues: plan.queues)
    }
    (resources.capture, resources.captureReaders) = captures.descriptors
    let process = try HostProcess(plan, on: access, resources, .first, trace: trace)
    interface = try process.awaitReady()
    self.plan = plan
    self.access = access
    self.resources = resources
    self.page = page
    self.record = record
    self.captures = captures
    self.process = process
    let now = RunSession.now()
    startedAt = now
    backOff = RestartBackOff(limit: trace == nil ? plan.restartLimit : 0)
    watch = HeartbeatWatch(queues: interface.queues, at: now)
    standby = StandbyHost(
      isWanted: plan.keepsStandby && trace == nil && plan.restartLimit > 1, at: now)
  }

  /// 0 while there is none.
  var identifier: pid_t { process?.identifier ?? 0 }
  /// What its threads show.
  var signs: HostSigns { record.signs }
  /// Of the counter page.
  var counterDescriptor: Int32 { page.descriptor }
  var isDown: Bool { process == nil }

  /// What hosts have counted, and how many there have been.
  var counters: [(name: String, value: UInt64)] { pageCounters + ownCounters }
  var pageCounters: [(name: String, value: UInt64)] { page.read() }

  /// Adds the page in which hosts count.
  func add(to handout: inout CounterHandout) { handout.add(page, "of=host") }

  /// Which host there is, how many there have been, and what is captured of their packets.
  var ownCounters: [(name: String, value: UInt64)] {
    [("host_process", UInt64(identifier)), ("host_restarts", counts.values.reduce(0, +))]
      + RestartReason.allCases.map { ("host_restarts_\($0.rawValue)", counts[$0] ?? 0) }
      + restartTimes + captures.counters
  }

  /// When the last host that has taken over did what, in nanoseconds of the monotonic clock.
  private var restartTimes: [(name: String, value: UInt64)] {
    guard let lastRestart else { return [] }
    return [
      ("host_restart_detected_ns", lastRestart.detected),
      ("host_restart_reset_ns", lastRestart.reset),
      ("host_restart_spawned_ns", lastRestart.spawned),
      ("host_restart_begun_ns", lastRestart.begun),
      ("host_restart_confined_ns", lastRestart.confined),
      ("host_restart_ready_ns", lastRestart.ready),
      ("host_restart_started_ns", signs.time(of: .started)),
      ("host_restart_first_packet_ns", signs.time(of: .firstPacket)),
    ]
  }

  /// What to watch: when one becomes readable, ``check(at:)`` is due.
  var descriptors: [Int32] { (process?.descriptors ?? []) + [standby.descriptor] }
  /// When it is due at the latest.
  var due: UInt64 { pending?.due ?? min(watch.due, standby.due) }

  func send(_ text: String, descriptors: [Int32] = []) {
    process?.send(text, descriptors: descriptors)
  }

  // MARK: Watching

  /// Looks what has happened, and does what is due.
  /// - Throws: where there is no host any more, and will be none.
  func check(at now: UInt64) throws(SupervisorError) -> [Event] {
    guard let process else {
      return if let pending, now >= pending.due { try attempt(pending, at: now) } else { [] }
    }
    if let hang = watch.look(record.signs, at: now) {
      return try fail(.hung, .refused(process: "driver host", reason: hang), at: now)
    }
    let news: [ControlMessage]
    do throws(SupervisorError) {
      news = try process.news()
    } catch {
      switch error {
      case .fault: return try fail(.device, error, at: now)
      case .violation: return try fail(.ended, error, at: now)
      default: throw error
      }
    }
    // What it has said comes before its end, and is of no meaning once another one has its place.
    if news.isEmpty && process.isOver {
      return try fail(.ended, .ended(process: "driver host", how: process.kill()), at: now)
    }
    standby.step(plan, on: access, resources, at: now)
    return news.map(Event.said)
  }

  /// The host is of no use any more.
  /// - Parameter what: is wrong with it.
  func fail(
    _ reason: RestartReason, _ what: SupervisorError, at now: UInt64
  ) throws(SupervisorError) -> [Event] {
    let restart = HostRestart(reason, detected: monotonic_nanoseconds())
    process?.kill()
    process = nil
    counts[reason, default: 0] += 1
    return try postpone(PendingRestart(restart: restart, due: now), what, at: now)
  }

  private func postpone(
    _ restart: PendingRestart, _ what: SupervisorError, at now: UInt64
  ) throws(SupervisorError) -> [Event] {
    guard let delay = backOff.next(at: now, lived: now - startedAt) else {
      throw backOff.limit < 2
        ? what
        : .gaveUp(times: backOff.limit, seconds: Int(RestartBackOff.span / 1000), last: "\(what)")
    }
    var next = restart
    next.due = now + delay
    pending = next
    let news = Event.news(
      "the driver host is replaced (\(restart.restart.reason.rawValue)): \(what)"
        + (delay == 0 ? "" : "; in \(delay) ms"))
    return delay == 0 ? [news] + (try attempt(next, at: now)) : [news]
  }

  /// Replaces a host that is well.
  /// - Parameter program: another program for it and those after it; nil for the same.
  func restart(program: String?, at now: UInt64) throws(SupervisorError) -> [Event] {
    let former = plan.hostProgram
    if let program { plan.hostProgram = program }
    let restart = HostRestart(.requested, detected: monotonic_nanoseconds())
    _ = process?.stop(withinMilliseconds: 500)
    process = nil
    counts[.requested, default: 0] += 1
    let next = PendingRestart(
      restart: restart, due: now, formerProgram: program == nil ? nil : former)
    pending = next
    return try attempt(next, at: now)
  }

  // MARK: Replacing

  /// The device first: it does no more DMA when the new host starts.
  private func attempt(
    _ current: PendingRestart, at now: UInt64
  ) throws(SupervisorError) -> [Event] {
    var restart = current.restart
    reserve.release()
    defer { reserve.fill() }
    let next: HostProcess
    let description: InterfaceDescription
    do throws(SupervisorError) {
      record.signs.forget()
      try recoverDevice()
      restart.reset = monotonic_nanoseconds()
      onReset()
      try restoreMemory()
      restart.spawned = monotonic_nanoseconds()
      (next, description) = try startNext()
    } catch {
      // What it says itself that no other host could do better is the end, but for a program that is new.
      if case .refused = error, current.formerProgram == nil { throw error }
      startedAt = RunSession.now()
      var again = current
      if let former = current.formerProgram { plan.hostProgram = former }
      again.formerProgram = nil
      return try postpone(again, error, at: startedAt)
    }
    guard description.isSame(for: interface) else {
      throw .device("\(access.name) is another device after its reset: start the run anew")
    }
    process = next
    pending = nil
    startedAt = RunSession.now()
    watch = HeartbeatWatch(queues: interface.queues, at: startedAt)
    standby.postpone(at: startedAt)
    restart.begun = signs.time(of: .begun)
    restart.confined = signs.time(of: .confined)
    restart.ready = signs.time(of: .ready)
    lastRestart = restart
    let parts = restart.parts.map { "\($0.name) \(Self.milliseconds($0.nanoseconds)) ms" }
    return [
      .restarted,
      .news("driver host \(next.identifier) goes on: \(parts.joined(separator: ", "))"),
    ]
  }

  /// The one that stands by, or a new one where there is none of that program or it does not come to it.
  private func startNext() throws(SupervisorError) -> (HostProcess, InterfaceDescription) {
    if let next = standby.take(program: plan.hostProgram) {
      next.begin(on: access)
      do throws(SupervisorError) {
        return (next, try next.awaitReady())
      } catch {
        next.kill()
        // It may have told the device something.
        try recoverDevice()
        try restoreMemory()
      }
    }
    let next = try HostProcess(plan, on: access, resources, .next)
    return (next, try next.awaitReady())
  }

  private func recoverDevice() throws(SupervisorError) {
    do throws(PCIError) {
      try access.recover()
    } catch {
      throw .device("\(access.name) cannot be reset: \(error)")
    }
  }

  private func restoreMemory() throws(SupervisorError) {
    do throws(PCIError) {
      try access.restoreMemory()
    } catch {
      throw .device("\(access.name) cannot be told of its memory: \(error)")
    }
  }

  private static func milliseconds(_ nanoseconds: UInt64) -> String {
    "\(nanoseconds / 1_000_000).\(nanoseconds / 100_000 % 10)"
  }

  /// Asks it to end.
  /// - Returns: what was not as it should be.
  func stop() -> [String] {
    defer { process = nil }
    pending = nil
    standby.end()
    return process?.stop(withinMilliseconds: 3000) ?? []
  }
}

extension InterfaceDescription {
  /// Whether an instance that was told of `other` can use this one.
  func isSame(for other: InterfaceDescription) -> Bool {
    macAddress == other.macAddress && mtu == other.mtu && queues == other.queues
      && offloads == other.offloads
  }
}
