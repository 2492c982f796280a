import Loops
import Supervisor

/// One thing measured over a range of one size, as rows `sweep.….SIZE`, with the reason for the shape.
struct Sweep {
  /// What its rows' names begin with; the size follows.
  var prefix: String
  /// What follows the size in them.
  var suffix = ""
  /// What the size is.
  var axis: String
  var sizes: [Int]
  /// Whether a value is packets a second, rather than time a packet.
  var isRate: Bool
  /// Holds wherever the measured program runs; what differs from machine to machine is in the table.
  var reason: String

  func name(_ size: Int) -> String { "\(prefix).\(size)\(suffix)" }
  /// All of them as one.
  var title: String { suffix.isEmpty ? prefix : "\(prefix).N\(suffix)" }

  static let all =
    [ring, frames, queuePairs, idleQueuePairs] + instances.map(\.sweep)
    + steering.map(\.sweep)

  static let ring = Sweep(
    prefix: "sweep.ring.rx", axis: "ring size", sizes: [64, 256, 1024, 4096], isRate: true,
    reason: """
      Level: two bursts of 32 between back-end and driver are all that either needs, and the driver takes a buffer soon \
      after it was filled; a longer ring only brings each buffer back later.
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
      One thread turns over the pairs, a burst of 32 each. They share nothing, so the instructions a packet stay the same \
      (host.receive.pairs4 beside host.receive.split); time grows by the caches, where each pair has rings, ledger and \
      packets of its own.
      """)

  static let idleQueuePairs = Sweep(
    prefix: "sweep.queues.idle", axis: "queue pairs, one with packets", sizes: [1, 2, 3, 4],
    isRate: false,
    reason: """
      Each pair without packets adds one empty look at its rings for every burst of 32 of the busy one.
      """)
}

/// Rates and times over ring sizes, frame sizes and numbers of queue pairs. All sizes have their turn in each round.
struct SweepContests {
  let plan: BenchmarkPlan
  let dpdk: DPDK

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "sweep.") else { return }
    try measure(.queuePairs, take) { pairs in
      (ours: { try sample(pairs: pairs, busy: pairs) }, peer: nil)
    }
    try measure(.idleQueuePairs, take) { pairs in
      (ours: { try sample(pairs: pairs, busy: 1) }, peer: nil)
    }
    guard dpdk.isInstalled else { return }
    try measure(.ring, take) { size in
      (
        ours: { try Fronts.own(dpdk, ringSize: size).receive(plan.window) },
        peer: { try Fronts.peer(dpdk, ringSize: size).receive(plan.window) }
      )
    }
    try runFrames(take)
  }

  /// Both are there all the time: they burn their cores only while they are measured.
  private func runFrames(_ take: ([BenchmarkRow]) -> Void) throws {
    guard Sweep.frames.sizes.contains(where: { plan.wants(Sweep.frames.name($0)) }) else { return }
    let ours = try Fronts.own(dpdk, ringSize: 256, sendsPieces: true)
    let peer = try Fronts.peer(dpdk, ringSize: 256, sendsPieces: true)
    try measure(.frames, take) { bytes in
      (
        ours: { try ours.receive(plan.window, bytes: bytes) },
        peer: { try peer.receive(plan.window, bytes: bytes) }
      )
    }
  }

  private func measure(
    _ sweep: Sweep, _ take: ([BenchmarkRow]) -> Void,
    _ sides: (Int) -> (ours: Contest.Run, peer: Contest.Run?)
  ) throws {
    let contests = sweep.sizes.filter { plan.wants(sweep.name($0)) }.map { size in
      let sides = sides(size)
      return Contest(
        [
          .init(sweep.name(size), sweep.isRate ? "Mpps" : "ns/packet", isRate: sweep.isRate)
        ], ours: sides.ours, peer: sides.peer.map { ("virtio-user", $0) })
    }
    take(try Contest.measure(contests, rounds: plan.rounds))
  }

  private func sample(pairs: Int, busy: Int) throws -> Sample {
    pinThread(toCore: 0)
    defer { unpinThread() }
    var loop = try HostPairsLoop(.split, pairs: pairs, busy: busy)
    return try timed(&loop, milliseconds: plan.window)
  }
}

/// One front-end on split rings and its back-end, for as long as the value is held.
private struct Fronts {
  private let scratch: ScratchFolder
  private let set: (_ bytes: Int) throws -> Void
  private let measure: (_ milliseconds: Int) throws -> Sample

  static func own(_ dpdk: DPDK, ringSize: Int, sendsPieces: Bool = false) throws -> Fronts {
    let scratch = try ScratchFolder()
    guard
      let front = try OwnFront(
        dpdk, scratch, false, true, ringSize: ringSize, sendsPieces: sendsPieces)
    else { throw SupervisorError.input("the driver does not use split rings") }
    return Fronts(
      scratch: scratch, set: { try front.set(burst: 32, bytes: $0) }, measure: front.receive)
  }

  static func peer(_ dpdk: DPDK, ringSize: Int, sendsPieces: Bool = false) throws -> Fronts {
    let scratch = try ScratchFolder()
    let front = try VirtioUser(
      dpdk, scratch, ",packed_vq=0,mrg_rxbuf=1,queue_size=\(ringSize)", ringSize: ringSize,
      sendsPieces: sendsPieces)
    return Fronts(
      scratch: scratch, set: { try front.set(burst: 32, bytes: $0) }, measure: front.receive)
  }

  func receive(_ milliseconds: Int, bytes: Int = 64) throws -> Sample {
    try set(bytes)
    return try measure(milliseconds)
  }
}
