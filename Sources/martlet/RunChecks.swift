import Benchmarks
import CLinux
import Glibc
import Supervisor

/// The checks of a run with the emulated device: ping, fetch with checksum, counters that agree.
struct RunChecks {
  private let plan: RunPlan

  init(_ plan: RunPlan) { self.plan = plan }

  /// - Returns: false when the user asked for the end.
  func run(
    _ session: inout RunSession, started: UInt64, failures: inout [String]
  ) throws -> Bool {
    guard let namespace = session.namespace else {
      return try fetchFromStack(&session, failures: &failures)
    }
    let ping = try Tool("ping", package: "iputils-ping")
    let (first, text) = try execute(
      &session, namespace, [ping.path, "-n", "-c", "1", "-W", "2", plan.address.host], 3000)
    guard first == .exited(0) else {
      if first == nil { return false }
      failures.append("no answer to the first ping: \(text)")
      return true
    }
    say("first ping answered \(monotonic_milliseconds() - started) ms after the start")
    let (more, summary) = try execute(
      &session, namespace,
      [ping.path, "-n", "-q", "-c", "100", "-i", "0.01", "-W", "2", plan.address.host], 10_000)
    if more == nil { return false }
    if more != .exited(0) || !summary.contains(" 0% packet loss") {
      failures.append("pings were lost: \(summary)")
    }
    for line in summary.split(separator: "\n") where line.contains("packet") || line.contains("rtt")
    {
      say("ping: \(line)")
    }
    if plan.fetchBytes > 0 {
      if try !fetch(&session, namespace, failures: &failures) { return false }
    }
    return try checkCounters(&session, namespace, failures: &failures)
  }

  /// Kernels talk now and then unasked, and each counter is read at its own moment: those of a quiet moment must agree.
  private func checkCounters(
    _ session: inout RunSession, _ namespace: NetworkNamespace?, failures: inout [String]
  ) throws -> Bool {
    for attempt in 1...15 {
      if try session.wait(for: -1, milliseconds: 200) == .interrupted { return false }
      let check = CounterCheck(session.counters, namespace?.frames)
      if check.differences.isEmpty || attempt == 15 {
        check.run(failures: &failures)
        break
      }
    }
    return true
  }

  /// Without the kernel: a second stack instance fetches and checks.
  private func fetchFromStack(
    _ session: inout RunSession, failures: inout [String]
  ) throws -> Bool {
    if plan.fetchBytes == 0 { return true }
    var far = try StackFarEnd.start(plan)
    let outcome = try session.wait(for: far.descriptor, milliseconds: 130_000)
    let (fetch, complaints) = far.stop()
    failures += complaints
    if outcome == .interrupted { return false }
    if fetch != .exited(0) { failures.append("the far stack instance \(fetch)") }
    return try checkCounters(&session, nil, failures: &failures)
  }

  /// Fetches from the stack's server and compares the checksum with one made from the same pattern here.
  private func fetch(
    _ session: inout RunSession, _ namespace: NetworkNamespace, failures: inout [String]
  ) throws -> Bool {
    let curl = try Tool("curl", package: "curl")
    let sum = try Tool("sha256sum", package: "coreutils")
    let url = "http://\(plan.address.host):\(plan.httpPort)/bytes/\(plan.fetchBytes)"
    let shell = try Tool("bash", package: "bash")
    var server = try startServer(in: session.stackNamespace)
    defer { _ = server?.end() }
    let start = monotonic_milliseconds()
    let (end, got) = try execute(
      &session, namespace,
      [
        shell.path, "-c",
        "set -o pipefail; \(curl.path) -fsS --max-time 120 --speed-limit 1 --speed-time 10 '\(url)' | \(sum.path)",
      ], 130_000)
    let elapsed = max(1, monotonic_milliseconds() - start)
    guard let end else { return false }
    guard end == .exited(0) else {
      failures.append("the fetch of \(url) failed: \(got)")
      return true
    }
    let (_, wanted) = try shell.run(
      ["-c", "'\(Programs.martlet)' pattern \(plan.fetchBytes) | \(sum.path)"],
      withinMilliseconds: 60_000)
    let isRight = !wanted.isEmpty && got == wanted
    say(
      "fetched \(plan.fetchBytes) bytes in \(elapsed) ms (\(UInt64(plan.fetchBytes) / elapsed / 1000) MB/s), checksum \(isRight ? "as expected" : "WRONG")"
    )
    if !isRight { failures.append("the fetch of \(url) brought other bytes: \(got)") }
    return true
  }

  /// The kernel stack has no server of its own: one runs where its interface is, for one client.
  /// - Returns: nil for other stacks; else a server that listens.
  private func startServer(in namespace: NetworkNamespace?) throws -> Tool.Job? {
    guard plan.stack == .kernel, let namespace else { return nil }
    let job = try Tool("nsenter", package: "util-linux").start(
      namespace.entering([
        Programs.martlet, "pattern", "\(plan.fetchBytes)", "--serve", "\(plan.httpPort)",
      ]))
    let port = String(plan.httpPort, radix: 16, uppercase: true)
    let listens = ":\(String(repeating: "0", count: 4 - port.count))\(port) 00000000:0000 0A "
    for _ in 0..<200 {
      // Sockets of its namespace, once it is there; state 0A is that of one that listens (proc(5)).
      let process = "/proc/\(job.process.identifier)"
      if inode("\(process)/ns/net") != inode("/proc/self/ns/net"),
        let sockets = try? readText("\(process)/net/tcp"), sockets.contains(listens)
      {
        return job
      }
      usleep(10_000)
    }
    throw SupervisorError.checkFailed("the HTTP server behind the kernel stack does not listen")
  }

  private func inode(_ path: String) -> ino_t {
    var status = stat()
    return stat(path, &status) == 0 ? status.st_ino : 0
  }

  /// Runs a program in the namespace while the session is watched.
  /// - Returns: how it ended, nil when the user asked for the end; and what it printed.
  private func execute(
    _ session: inout RunSession, _ namespace: NetworkNamespace, _ command: [String],
    _ limit: UInt64
  ) throws -> (ProcessEnd?, String) {
    let nsenter = try Tool("nsenter", package: "util-linux")
    var job = try nsenter.start(namespace.entering(command))
    let outcome = try session.wait(for: job.process.descriptor, milliseconds: limit)
    if outcome == .interrupted { return (nil, "") }
    let (end, output) = job.end()
    return (end, output)
  }
}

/// Whether every packet that one part has handed on is counted by the next.
struct CounterCheck {
  private var values: [String: UInt64] = [:]
  private let wire: (received: UInt64, sent: UInt64)?

  init(_ counters: [(name: String, value: UInt64)], _ wire: (received: UInt64, sent: UInt64)?) {
    for (name, value) in counters { values[name] = value }
    self.wire = wire
  }

  private subscript(_ name: String) -> UInt64 { values[name] ?? 0 }

  /// The sum over all queues of a name such as rx_q%_packets.
  private func sum(_ pattern: String) -> UInt64 {
    let parts = pattern.split(separator: "%")
    var total: UInt64 = 0
    for queue in 0..<64 { total += self["\(parts[0])\(queue)\(parts[1])"] }
    return total
  }

  private var copiedBytes: UInt64 {
    self["stack_rx_copied_bytes"] + self["stack_tx_copied_bytes"]
  }

  /// Of a stack that keeps packets in memory of its own; 0 of every other.
  private var designedCopies: UInt64 {
    self["stack_copies_per_byte"] * (self["stack_rx_bytes"] + self["stack_tx_bytes"])
  }

  /// What does not agree.
  var differences: [String] {
    var equations: [(String, UInt64, String, UInt64)] = [
      (
        "device received", self["device_rx_packets"], "driver received or refused",
        sum("rx_q%_packets") + sum("rx_q%_errors")
      ),
      (
        "driver received", sum("rx_q%_packets"), "stack received or channel full",
        self["stack_rx_packets"] + sum("rx_q%_dropped_ring_full")
      ),
      (
        "stack sent", self["stack_tx_packets"], "driver sent or refused",
        sum("tx_q%_packets") + sum("tx_q%_errors")
      ),
      (
        "driver sent", sum("tx_q%_packets"), "device sent, lost or refused",
        self["device_tx_packets"] + self["device_tx_lost"] + self["device_tx_malformed"]
          - self["device_tx_segments"]
      ),
      ("copied bytes", copiedBytes, "those that the stack copies by design", designedCopies),
      ("violations of the specification", self["device_violations"], "none", 0),
      ("DMA outside what was mapped", self["device_iommu_faults"], "none", 0),
    ]
    if let wire {
      equations.append(
        (
          "wire sent", wire.sent, "device received, filtered, oversized or unwanted",
          ["packets", "filtered", "oversized", "unwanted", "bad", "missed"]
            .map { self["device_rx_\($0)"] }.reduce(0, +)
        ))
      equations.append(
        ("wire received", wire.received, "device sent", self["device_tx_packets"]))
    }
    var wrong: [String] = []
    for (left, a, right, b) in equations where a != b {
      wrong.append("\(left) \(a), \(right) \(b)")
    }
    return wrong
  }

  func run(failures: inout [String]) {
    let wrong = differences
    say(
      wrong.isEmpty
        ? "counters agree: wire, device, driver, channel, stack; 0 violations, 0 DMA faults, \(copiedBytes) bytes copied"
        : "counters disagree: \(wrong.joined(separator: "; "))")
    failures += wrong
  }
}
