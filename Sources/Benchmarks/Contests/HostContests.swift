import CLinux
import Memory
import Supervisor
import VhostUser

/// The whole product beside one process without a channel: DPDK's back-end -> driver host -> channel -> an instance in
/// another process that reads each header, all of ours on core 1; and DPDK's testpmd with virtio-user there.
struct HostContests {
  let plan: BenchmarkPlan
  let dpdk: DPDK

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "host."), dpdk.isInstalled else { return }
    for isPacked in [false, true] {
      for ringSize in [256, 1024] {
        // The larger ring holds what comes while the instance has the core: it is the one to use on a shared core.
        let base = isPacked ? "host.rx.packed.64" : "host.rx.64"
        let name = ringSize == 1024 ? base : "\(base).ring\(ringSize)"
        if plan.wants(name) { try run(name, ringSize, isPacked, take) }
      }
    }
  }

  private func run(
    _ name: String, _ ringSize: Int, _ isPacked: Bool, _ take: ([BenchmarkRow]) -> Void
  ) throws {
    let scratch = try ScratchFolder()
    let socket = scratch.socket("ours")
    let back = try dpdk.startTestPMD(core: 0, device: "net_vhost0,iface=\(socket),queues=1")
    let ours = try OwnPipeline(back, socket: socket, ringSize: ringSize, isPacked: isPacked)
    let peer = try VirtioUser(
      dpdk, scratch, ",packed_vq=\(isPacked ? 1 : 0),queue_size=\(ringSize)", ringSize: ringSize)
    try back.set(burst: 32, bytes: 64)
    try peer.set(burst: 32, bytes: 64)
    let contest = Contest(
      [.init(name, "Mpps", isRate: true)], ours: { try ours.receive(plan.window) },
      peer: ("virtio-user, one process", { try peer.receive(plan.window) }))
    take(try contest.measure(rounds: plan.rounds))
  }
}

/// The supervisor's pipeline with a sink, as `martlet run --stack sink --mode yield` makes it, on core 1. Made anew for each
/// sample: it never sleeps.
private struct OwnPipeline {
  let back: TestPMD
  let socket: String
  let plan: RunPlan

  init(_ back: TestPMD, socket: String, ringSize: Int, isPacked: Bool) throws {
    guard let address = StackAddress("10.0.0.2/24") else {
      throw SupervisorError.input("no address")
    }
    self.back = back
    self.socket = socket
    var plan = RunPlan(address: address)
    plan.device = .vhostUser(socket)
    plan.stack = .sink
    plan.mode = .yield
    plan.cores = [1]
    plan.ringSize = ringSize
    if !isPacked { plan.without = ["packed"] }
    self.plan = plan
  }

  func receive(_ milliseconds: Int) throws -> Sample {
    // Children start on the core of the thread that makes them.
    pinThread(toCore: 1)
    defer { unpinThread() }
    var pipeline = try Pipeline.start(plan, on: try VhostUserAccess(path: socket))
    unpinThread()
    let sample = Result { try measure(pipeline, milliseconds) }
    let complaints = pipeline.stop()
    guard complaints.isEmpty else {
      throw SupervisorError.checkFailed(complaints.joined(separator: "; "))
    }
    return try sample.get()
  }

  private func measure(_ pipeline: borrowing Pipeline, _ milliseconds: Int) throws -> Sample {
    try back.start(.transmit)
    defer { try? back.stop() }
    pause(milliseconds: 100)
    let processes = [pipeline.hostIdentifier, pipeline.instanceIdentifier]
    let backBefore = try back.readCounters()
    let start = monotonic_nanoseconds()
    let packetsBefore = Self.packets(pipeline)
    let cpuBefore = processes.reduce(0) { $0 + cpuNanoseconds(of: $1) }
    pause(milliseconds: milliseconds)
    let packets = Self.packets(pipeline) - packetsBefore
    let cpu = processes.reduce(0) { $0 + cpuNanoseconds(of: $1) } - cpuBefore
    let elapsed = Double(monotonic_nanoseconds() - start)
    let backAfter = try back.readCounters()
    return Sample(
      [packets * 1000 / elapsed],
      cpuShare: min(Double(cpu) / elapsed, backAfter.share(since: backBefore)))
  }

  /// What has arrived in the instance.
  private static func packets(_ pipeline: borrowing Pipeline) -> Double {
    Double(pipeline.counters.first { $0.name == "stack_rx_packets" }?.value ?? 0)
  }
}
