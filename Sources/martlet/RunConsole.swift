import CLinux
import Glibc
import Logging
import Supervisor

/// What `martlet run` shows and checks.
final class RunConsole {
  private let plan: RunPlan
  private let seconds: UInt64?
  private let json: Bool
  private let started = monotonic_milliseconds()
  private var before: [String: UInt64] = [:]
  private var failures: [String] = []
  /// What the processes say, with times; what the user asked for goes to standard output.
  private let log = Logger(label: "martlet") { StreamLogHandler.standardError(label: $0) }

  init(_ plan: RunPlan, seconds: UInt64?, json: Bool) {
    self.plan = plan
    self.seconds = seconds
    self.json = json
  }

  func run() throws {
    guard let path = plan.tracePath else { return try run(nil) }
    let trace = try TraceFile(path: path)
    do {
      try run(trace)
    } catch {
      _ = finish(trace)
      throw error
    }
    if let failure = finish(trace) {
      throw SupervisorError.checkFailed("the trace in \(path) is not whole: \(failure)")
    }
  }

  /// - Returns: why the trace is not whole; nil where it is.
  private func finish(_ trace: TraceFile) -> String? {
    let (lines, failure) = trace.finish()
    say("trace: \(lines) lines in \(trace.path)")
    return failure
  }

  private func run(_ trace: TraceFile?) throws {
    var session = try RunSession.start(
      plan, trace: trace, report: { [log] in log.info("\($0)") },
      eachSecond: { [self] in
        printRates($0.counters)
      })
    do {
      picture(session)
      try work(&session)
    } catch {
      // The reason is known; how the others end beside it is not news.
      _ = session.stop()
      throw error
    }
    failures += session.stop()
    // The host has read what the device counts at its end.
    Self.printTotals(session.counters, json: json)
    if !failures.isEmpty { throw SupervisorError.checkFailed(failures.joined(separator: "; ")) }
  }

  private func work(_ session: inout RunSession) throws {
    let start = monotonic_milliseconds()
    // Nothing answers where the stack is a sink.
    if plan.emulatedModel != nil && plan.stack != .sink {
      if try !RunChecks(plan).run(&session, started: started, failures: &failures) { return }
    }
    let isTerminal = isatty(0) == 1 && isatty(1) == 1
    if seconds == nil && plan.emulatedModel != nil && !isTerminal { return }
    hint(session)
    let limit =
      seconds.map { $0 * 1000 - min($0 * 1000, monotonic_milliseconds() - start) } ?? .max / 2
    _ = try session.wait(for: -1, milliseconds: limit)
  }

  private func picture(_ session: borrowing RunSession) {
    let interface = session.pipeline.interface
    let offloads = interface.features.joined(separator: " ")
    let device: String
    switch plan.device {
    case .emulated(let model):
      device = "device process \(session.deviceIdentifier ?? 0)  (\(model.rawValue), vfio-user)"
    case .vfioUser(let path): device = "vfio-user server at \(path)"
    case .vhostUser(let path): device = "vhost-user back-end at \(path)"
    case .function(let address): device = "PCI function \(address)  (VFIO)"
    }
    if plan.emulatedModel != nil && session.namespace == nil {
      say("  a second stack instance, \(plan.address.neighbour)")
      say("        |  datagrams on the loopback interface")
    }
    if let namespace = session.namespace {
      say(
        "  kernel's TCP/IP, \(plan.address.neighbour)  (\(namespace.interface), in a namespace of its own)"
      )
      say("        |  TAP")
    }
    say("  \(device)")
    say("        |  registers, rings, interrupts")
    say(
      "  driver host \(session.pipeline.hostIdentifier)  (confined; \(interface.macAddress), MTU \(interface.mtu); \(threads(interface.queues)))"
    )
    say("        |  channel: shared memory, no copy")
    say(
      "  stack instance \(session.pipeline.instanceIdentifier)  (\(plan.stack.rawValue), \(plan.address))"
    )
    say("  supervisor \(getpid()) watches all; negotiated: \(offloads)")
    if let warning = session.pipeline.memoryWarning { say("  warning: \(warning)") }
    // The stack instance is one more, and so is a device process.
    let busy = interface.queues + (plan.emulatedModel == nil ? 1 : 2)
    if plan.mode == .poll, busy > Cores().allowed.count {
      say(
        "  warning: \(busy) threads that never sleep share \(Cores().allowed.count) cores, each for whole time slices; "
          + "--mode yield lets them give way")
    }
  }

  /// The driver host's threads, and where they run.
  private func threads(_ queues: Int) -> String {
    let count = queues == 1 ? "1 queue thread" : "\(queues) queue threads"
    let cores = plan.cores.prefix(queues).map(String.init).joined(separator: ",")
    return "\(count), \(plan.mode.rawValue), on " + (cores.isEmpty ? "any core" : "core \(cores)")
  }

  private func hint(_ session: borrowing RunSession) {
    guard let namespace = session.namespace else {
      say("running until Ctrl-C")
      return
    }
    let enter = namespace.prefix.joined(separator: " ")
    say("try it, until Ctrl-C here:")
    say("  \(enter) ping \(plan.address.host)")
    if plan.httpPort > 0 && plan.stack != .kernel {
      say("  \(enter) curl http://\(plan.address.host):\(plan.httpPort)/")
    }
  }

  /// Rates of the last second, from the differences of the counters.
  private func printRates(_ counters: [(name: String, value: UInt64)]) {
    var now: [String: UInt64] = [:]
    for (name, value) in counters { now[name] = value }
    func rate(_ suffix: String) -> UInt64 {
      var sum: UInt64 = 0
      for (name, value) in now where isQueueCounter(name, suffix) {
        sum &+= value &- min(value, before[name] ?? 0)
      }
      return sum
    }
    let receivedBytes = rate("rx_bytes") * 8
    let sentBytes = rate("tx_bytes") * 8
    say(
      "rx \(rate("rx_packets")) packets/s \(receivedBytes / 1_000_000) Mbit/s   "
        + "tx \(rate("tx_packets")) packets/s \(sentBytes / 1_000_000) Mbit/s   "
        + "interrupts \(rate("interrupts"))/s  doorbells \(rate("doorbells"))/s  "
        + "dropped \(rate("rx_dropped") + rate("rx_errors") + rate("tx_errors"))/s")
    before = now
  }

  /// rx_q0_packets counts as rx_packets, and so on; q0_doorbells as doorbells.
  private func isQueueCounter(_ name: String, _ suffix: String) -> Bool {
    if name == "host_" + suffix { return true }
    let words = name.split(separator: "_")
    guard let at = words.firstIndex(where: { $0.first == "q" && Int($0.dropFirst()) != nil })
    else { return false }
    let rest = (words[..<at] + words[(at + 1)...]).joined(separator: "_")
    return rest == suffix || rest.hasPrefix(suffix + "_")
  }

  static func printTotals(_ counters: [(name: String, value: UInt64)], json: Bool) {
    if json {
      let pairs = counters.map { "\"\($0.name)\": \($0.value)" }
      say("{\(pairs.joined(separator: ", "))}")
      return
    }
    say("counters at the end:")
    for (name, value) in counters where value > 0 { say("  \(name) \(value)") }
  }
}

/// A line for the user, at once.
func say(_ line: String) { writeLine(line, to: 1) }
