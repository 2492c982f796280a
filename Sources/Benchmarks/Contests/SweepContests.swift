import Loops
import Supervisor

/// One thing measured over a range of one size, as rows `sweep.….SIZE`, with the reason for the shape.
struct Sweep {
  /// What its rows' names begin with; the size follows.
  var prefix: String
  /// What the size is.
  var axis: String
  var sizes: [Int]
  /// Whether a value is packets a second, rather than time a packet.
  var isRate: Bool
  /// Holds wherever the measured program runs; what differs from machine to machine is in the table.
  var reason: String

  func name(_ size: Int) -> String { "\(prefix).\(size)" }

  static let all = [ring, frames, queuePairs, idleQueuePairs]

  static let ring = Sweep(
    prefix: "sweep.ring.rx", axis: "ring size", sizes: [64, 256, 1024, 4096], isRate: true,
    reason: """
      Small rings: back-end and driver move bursts of 32, so in a ring of 64 one soon waits for the other. Large rings: \
      every buffer of the ring is touched before any is touched again, so its headers and descriptors leave the nearer \
      caches.
      """)

  static let frames = Sweep(
    prefix: "sweep.frame.rx", axis: "frame bytes", sizes: [64, 512, 1518, 9000], isRate: true,
    reason: """
      The back-end copies each frame into the buffers and pays by the byte; the driver reads no payload and pays by the \
      buffer: one up to 2 KiB, five of them merged for 9000 bytes.
      """)

  static let queuePairs = Sweep(
    prefix: "sweep.queues.rx", axis: "queue pairs", sizes: [1, 2, 3, 4], isRate: false,
    reason: """
      One thread turns over the pairs, a burst of 32 each: pairs share nothing, so the instructions a packet stay the same, \
      and what time grows is the caches' share, as each pair has rings, ledger and packets of its own.
      """)

  static let idleQueuePairs = Sweep(
    prefix: "sweep.queues.idle", axis: "queue pairs, one with packets", sizes: [1, 2, 3, 4],
    isRate: false,
    reason: """
      Each pair without packets adds one empty look at its rings for every burst of 32 of the busy one.
      """)
}

/// Rates and times over ring sizes, frame sizes and numbers of queue pairs.
struct SweepContests {
  let plan: BenchmarkPlan
  let dpdk: DPDK

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "sweep.") else { return }
    for pairs in Sweep.queuePairs.sizes {
      for (sweep, busy) in [(Sweep.queuePairs, pairs), (.idleQueuePairs, 1)]
      where plan.wants(sweep.name(pairs)) {
        let contest = Contest(
          [.init(sweep.name(pairs), "ns/packet", isRate: false)],
          ours: { try sample(pairs: pairs, busy: busy) })
        take(try contest.measure(rounds: plan.rounds))
      }
    }
    guard dpdk.isInstalled else { return }
    for size in Sweep.ring.sizes where plan.wants(Sweep.ring.name(size)) {
      try run(Sweep.ring.name(size), [64], ringSize: size, take)
    }
    let frames = Sweep.frames.sizes.filter { plan.wants(Sweep.frames.name($0)) }
    if !frames.isEmpty { try run(nil, frames, ringSize: 256, take) }
  }

  private func sample(pairs: Int, busy: Int) throws -> Sample {
    pinThread(toCore: 0)
    defer { unpinThread() }
    var loop = try HostPairsLoop(.split, pairs: pairs, busy: busy)
    return try timed(&loop, milliseconds: plan.window)
  }

  /// Our driver and virtio-user receive, split rings.
  /// - Parameter name: of the only row; nil for one for each size of frame.
  private func run(
    _ name: String?, _ frames: [Int], ringSize: Int, _ take: ([BenchmarkRow]) -> Void
  ) throws {
    let scratch = try ScratchFolder()
    let sendsPieces = frames.contains { $0 > 2048 }
    guard
      let ours = try OwnFront(
        dpdk, scratch, false, true, ringSize: ringSize, sendsPieces: sendsPieces)
    else { return }
    let peer = try VirtioUser(
      dpdk, scratch, ",packed_vq=0,mrg_rxbuf=1,queue_size=\(ringSize)", ringSize: ringSize,
      sendsPieces: sendsPieces)
    for bytes in frames {
      let contest = Contest(
        [.init(name ?? Sweep.frames.name(bytes), "Mpps", isRate: true)],
        ours: {
          try ours.set(burst: 32, bytes: bytes)
          return try ours.receive(plan.window)
        },
        peer: (
          "virtio-user",
          {
            try peer.set(burst: 32, bytes: bytes)
            return try peer.receive(plan.window)
          }
        ))
      take(try contest.measure(rounds: plan.rounds))
    }
  }
}
