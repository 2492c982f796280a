import Loops

/// Loops that run in this process: the driver, the channel and the pool, each beside the C control, the pool beside DPDK's.
struct LoopContests {
  let plan: BenchmarkPlan
  let dpdk: DPDK

  /// - Parameter take: gets each contest's rows as they come.
  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    for (loop, name) in [
      (PathLoopName.receive, "path.receive.split"), (.receivePacked, "path.receive.packed"),
      (.transmit, "path.transmit.split"), (.transmitPacked, "path.transmit.packed"),
      (.channel, "path.channel"),
    ] where plan.wants(name) {
      guard let ours = try? sample(loop) else { continue }
      _ = ours
      let contest = Contest(
        [.init(name, "ns/packet", isRate: false)], ours: { try sample(loop) },
        control: loop.control.map { control in { try sample(control) } })
      take(try contest.measure(rounds: plan.rounds))
    }
    try runPools(take)
    try runSends(take)
  }

  static let sendSizes = [1, 16, 64]

  private func runSends(_ take: ([BenchmarkRow]) -> Void) throws {
    for kibibytes in Self.sendSizes {
      let name = "zbuf.write.\(kibibytes)K"
      guard plan.wants(name) else { continue }
      let contest = Contest(
        [.init(name, "ns/write", isRate: false)],
        ours: { try onFirstCore(SendLoop(byteCount: kibibytes << 10)) },
        peer: (
          "a copy to the stack's memory",
          { try onFirstCore(CopyingSendLoop(byteCount: kibibytes << 10)) }
        ))
      take(try contest.measure(rounds: plan.rounds))
    }
  }

  private func onFirstCore<L: PathLoop & ~Copyable>(_ loop: consuming L) throws -> Sample {
    pinThread(toCore: 0)
    defer { unpinThread() }
    return try timed(&loop, milliseconds: plan.window)
  }

  private func runPools(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "pool.") else { return }
    let pools = dpdk.isInstalled ? try dpdk.startPools() : nil
    for (loop, bulk) in [(PathLoopName.pool1, 1), (.pool32, 32)] {
      for (suffix, peer, word) in [
        ("", "rte_pktmbuf allocate and free", "mbuf"),
        (".bare", "rte_mempool, no reference count", "mempool"),
      ] {
        let name = "pool.bulk\(bulk)\(suffix)"
        guard plan.wants(name) else { continue }
        let contest = Contest(
          [.init(name, "ns/segment", isRate: false)], ours: { try sample(loop) },
          peer: (peer, pools.map { pools in { try ask(pools, "\(word) \(bulk)") } }),
          control: loop.control.map { control in { try sample(control) } })
        take(try contest.measure(rounds: plan.rounds))
      }
    }
  }

  private func ask(_ peer: LineProcess, _ command: String) throws -> Sample {
    peer.send("\(command) \(plan.window)")
    let numbers = try peer.line(withinMilliseconds: plan.window + 5000) { results($0) != nil }
    let values = results(numbers) ?? []
    return Sample([values[0]], cpuShare: values[1])
  }

  private func sample(_ loop: PathLoopName) throws -> Sample {
    pinThread(toCore: 0)
    defer { unpinThread() }
    return try loop.visit(TimedLoop(milliseconds: plan.window))
  }
}

/// Nanoseconds a packet over a window of time.
struct TimedLoop: PathLoopVisitor {
  let milliseconds: Int

  func visit<L: PathLoop & ~Copyable>(_ loop: consuming L) throws -> Sample {
    try timed(&loop, milliseconds: milliseconds)
  }
}

/// Nanoseconds a packet of a loop that runs for so long in this thread.
public func timed<L: PathLoop & ~Copyable>(_ loop: inout L, milliseconds: Int) throws -> Sample {
  _ = try loop.run(bursts: 1000)
  let watch = Stopwatch()
  var packets = 0
  while watch.elapsed < UInt64(milliseconds) * 1_000_000 {
    packets += try loop.run(bursts: 1000)
  }
  return Sample([Double(watch.elapsed) / Double(packets)], cpuShare: watch.cpuShare)
}
