import CLinux
import Channel
import Glibc
import PCI
import Supervisor
import VhostUser

/// A driver host with a stack instance as `martlet run` starts them, on a back-end of DPDK's that sends.
final class ReceivingHost {
  private let back: TestPMD
  private var pipeline: Pipeline
  private let queueThread: String

  /// - Parameter name: of the socket.
  static func start(
    _ dpdk: DPDK, _ scratch: ScratchFolder, name: String, mode: PollMode, isConfined: Bool
  ) throws -> ReceivingHost {
    guard let address = StackAddress("10.0.0.2/24") else {
      throw SupervisorError.input("10.0.0.2/24 is no address")
    }
    let socket = scratch.socket(name)
    let back = try dpdk.startTestPMD(core: 0, device: "net_vhost0,iface=\(socket),queues=1")
    var plan = RunPlan(address: address)
    plan.mode = mode
    plan.isConfined = isConfined
    plan.httpPort = 0
    let pipeline = try Pipeline.start(plan, on: try VhostUserAccess(path: socket))
    try back.set(burst: 32, bytes: 64)
    let thread = try HostThreads(process: pipeline.hostIdentifier).path(of: "queue 0")
    return ReceivingHost(back: back, pipeline: pipeline, queueThread: thread)
  }

  private init(back: TestPMD, pipeline: consuming Pipeline, queueThread: String) {
    self.back = back
    self.pipeline = pipeline
    self.queueThread = queueThread
  }

  private var received: UInt64 {
    pipeline.counters.first { $0.name == "rx_q0_packets" }?.value ?? 0
  }

  /// - Returns: millions of packets a second.
  func receive(milliseconds: Int) throws -> Sample {
    let watch = Stopwatch()
    let before = try HostThreads.schedule(queueThread)
    let packets = try receiving { pause(milliseconds: milliseconds) }
    let after = try HostThreads.schedule(queueThread)
    let waited = Double(after.waited - before.waited) / Double(watch.elapsed)
    return Sample(
      [Double(packets.count) * 1000 / Double(packets.nanoseconds)], cpuShare: 1 - waited)
  }

  /// - Returns: for each million packets, the system calls and the page faults of all threads of the host.
  func count(milliseconds: Int) throws -> Sample {
    let host = HostThreads(process: pipeline.hostIdentifier)
    let strace = try Tool("strace", package: "strace")
    var calls = 0.0
    var faults = 0.0
    let packets = try receiving {
      let before = try host.faults()
      var job = try strace.start(["-f", "-c", "-p", "\(host.process)"])
      pause(milliseconds: milliseconds)
      job.process.signal(SIGINT)
      let (_, text) = job.end(withinMilliseconds: 3000)
      guard text.contains("attached") else {
        throw SupervisorError.input("strace cannot watch the driver host: \(text)")
      }
      faults = Double(try host.faults() - before)
      calls = Self.calls(text)
    }
    let millions = Double(packets.count) / 1e6
    guard millions > 0 else { throw SupervisorError.input("the driver host receives nothing") }
    return Sample([calls / millions, faults / millions], cpuShare: 1)
  }

  /// The sum of strace's table, which has no last line where nothing was called. A sleep that strace has interrupted
  /// begins anew with restart_syscall(2).
  private static func calls(_ table: String) -> Double {
    var sum = 0.0
    for line in table.split(separator: "\n") {
      let words = line.split(separator: " ")
      guard words.count >= 5, let calls = Double(words[3]) else { continue }
      if words.last == "total" { sum += calls }
      if words.last == "restart_syscall" { sum -= calls }
    }
    return sum
  }

  private func receiving(
    _ body: () throws -> Void
  ) throws -> (count: UInt64, nanoseconds: UInt64) {
    try back.start(.transmit)
    defer { try? back.stop() }
    pause(milliseconds: 100)
    let (before, start) = (received, monotonic_nanoseconds())
    try body()
    return (received - before, monotonic_nanoseconds() - start)
  }

  func stop() throws {
    let complaints = pipeline.stop()
    if !complaints.isEmpty { throw SupervisorError.input(complaints.joined(separator: "; ")) }
  }
}
