import Channel
import Supervisor

/// The channel between two processes beside memif between two processes, and its rings beside rte_ring.
struct ChannelContests {
  let plan: BenchmarkPlan
  let dpdk: DPDK

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "channel.") else { return }
    let ours = try OwnChannel()
    try runDescriptors(ours, take)
    try runRates(ours, take)
    try runRoundTrips(ours, take)
  }

  private func runDescriptors(_ ours: OwnChannel, _ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants("channel.descriptors.32") else { return }
    let pools = dpdk.isInstalled ? try dpdk.startPools() : nil
    let contest = Contest(
      [.init("channel.descriptors.32", "M/s", isRate: true)],
      ours: { try ours.descriptors(burst: 32, milliseconds: plan.window) },
      peer: (
        "rte_ring, two threads",
        pools.map { pools in
          {
            pools.send("ring 32 \(plan.window)")
            let line = try pools.line(withinMilliseconds: plan.window + 5000) { results($0) != nil }
            let values = results(line) ?? []
            return Sample([values[0]], cpuShare: values[1])
          }
        }
      ),
      control: { ControlRing.measure(burst: 32, milliseconds: plan.window) })
    take(try contest.measure(rounds: plan.rounds))
  }

  private func runRates(_ ours: OwnChannel, _ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "channel.rate.") else { return }
    let scratch = try ScratchFolder()
    let peer = dpdk.isInstalled ? try Memif(dpdk, scratch) : nil
    for burst in [1, 8, 32, 64] where plan.wants("channel.rate.\(burst)") {
      let contest = Contest(
        [.init("channel.rate.\(burst)", "Mpps", isRate: true)],
        ours: { try ours.rate(burst: burst, milliseconds: plan.window) },
        peer: (
          "memif, zero-copy",
          peer.map { peer in { try peer.rate(burst: burst, milliseconds: plan.window) } }
        ))
      take(try contest.measure(rounds: plan.rounds))
    }
  }

  private func runRoundTrips(_ ours: OwnChannel, _ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "channel.roundtrip.") else { return }
    let scratch = try ScratchFolder()
    let peer = dpdk.isInstalled ? try MemifPing(dpdk, scratch) : nil
    let contest = Contest(
      ["p50", "p99", "p999"].map { .init("channel.roundtrip.\($0)", "ns", isRate: false) },
      ours: { try ours.ping(burst: 32, milliseconds: plan.window) },
      peer: (
        "memif, zero-copy",
        peer.map { peer in { try peer.ping(burst: 32, milliseconds: plan.window) } }
      ))
    take(try contest.measure(rounds: plan.rounds).filter { plan.wants($0.name) })
  }
}

/// Our channel: the host's side here, the instance's in a process that waits for lines.
private final class OwnChannel {
  private let pair: ChannelPair
  private var host: ChannelHostSide
  private let instance: LineProcess

  init() throws {
    let pair = try ChannelPair()
    host = ChannelHostSide(pair)
    instance = try LineProcess(
      name: "the channel's other end", program: Programs.martlet,
      arguments: ["bench-end", "channel"],
      descriptors: [pair.memory.descriptor, pair.arena.descriptor])
    self.pair = pair
    _ = try instance.line { $0 == "ready" }
  }

  func rate(burst: Int, milliseconds: Int) throws -> Sample {
    try run("take \(burst) \(milliseconds)", milliseconds) { try host.produce(burst: burst) }
  }

  func descriptors(burst: Int, milliseconds: Int) throws -> Sample {
    try run("descriptors \(burst) \(milliseconds)", milliseconds) {
      host.produceDescriptors(burst: burst)
    }
  }

  private func run(
    _ command: String, _ milliseconds: Int, _ body: () throws -> Double
  ) throws -> Sample {
    host.prepare()
    instance.send(command)
    pinThread(toCore: 0)
    defer { unpinThread() }
    let share = try body()
    let line = try instance.line(withinMilliseconds: milliseconds + 5000) { results($0) != nil }
    let values = results(line) ?? []
    return Sample([values[0]], cpuShare: min(share, values[1]))
  }

  func ping(burst: Int, milliseconds: Int) throws -> Sample {
    host.prepare()
    instance.send("echo \(burst) \(milliseconds)")
    pinThread(toCore: 0)
    defer { unpinThread() }
    let (histogram, share) = try host.ping(burst: burst, milliseconds: milliseconds)
    let line = try instance.line(withinMilliseconds: milliseconds + 5000) { results($0) != nil }
    return Sample(
      [50, 99, 99.9].map { Double(histogram.valueAtPercentile($0)) },
      cpuShare: min(share, (results(line) ?? [])[1]))
  }
}

/// Two testpmd that are joined by memif; the client gives its memory (`zero-copy`).
private final class Memif {
  private let server: TestPMD
  private let client: TestPMD

  init(_ dpdk: DPDK, _ scratch: ScratchFolder) throws {
    let device = memifDevice(scratch)
    server = try dpdk.startTestPMD(core: 0, device: device.server)
    client = try dpdk.startTestPMD(core: 1, device: device.client)
    pause(milliseconds: 2500)
  }

  func rate(burst: Int, milliseconds: Int) throws -> Sample {
    try server.set(burst: burst, bytes: 64)
    try client.set(burst: burst, bytes: 64)
    return try PairOfTestPMD(source: server, sink: client).rate(milliseconds: milliseconds)
  }
}

/// `port.c` and a testpmd that sends back, joined by memif.
private final class MemifPing {
  private let server: TestPMD
  private let port: LineProcess

  init(_ dpdk: DPDK, _ scratch: ScratchFolder) throws {
    let device = memifDevice(scratch)
    server = try dpdk.startTestPMD(core: 0, device: device.server)
    port = try dpdk.startPort(device.client)
    pause(milliseconds: 2500)
  }

  func ping(burst: Int, milliseconds: Int) throws -> Sample {
    try server.set(burst: burst, bytes: 64)
    return try PingPair(echo: server, port: port).ping(burst: burst, milliseconds: milliseconds)
  }
}

private func memifDevice(_ scratch: ScratchFolder) -> (server: String, client: String) {
  let common =
    "socket=\(scratch.socket("memif")),socket-abstract=no,id=0,rsize=10"
  return (
    "net_memif0,role=server,\(common)", "net_memif0,role=client,\(common),zero-copy=yes"
  )
}
