import Supervisor

/// Our driver and DPDK's virtio-user, each on a vhost back-end of DPDK's, one core each side: rates, and the latency of
/// one packet that bounces.
struct DriverContests {
  let plan: BenchmarkPlan
  let dpdk: DPDK

  /// A pair of rings and features, and what is measured with it.
  private struct Variant {
    var isPacked: Bool
    var isMergeable: Bool
    var ring: String { isPacked ? "packed" : "split" }
  }

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "driver.") || plan.wants(anyOf: "latency."), dpdk.isInstalled else {
      return
    }
    for isPacked in [false, true] {
      for isMergeable in [true, false] {
        let variant = Variant(isPacked: isPacked, isMergeable: isMergeable)
        let cells = Self.cells(variant).filter { plan.wants($0.name) }
        if !cells.isEmpty { try run(variant, cells, take) }
      }
    }
    try runLatency(take)
  }

  /// One row.
  private struct Cell {
    var name: String
    var verb: Verb
    var bytes: Int
    var burst: Int
  }

  private enum Verb: String, CaseIterable {
    case receive = "rx"
    case transmit = "tx"
    case forward
  }

  /// Of all rates' rows.
  static var names: [String] {
    [false, true].flatMap { isPacked in
      [true, false].flatMap { isMergeable in
        cells(Variant(isPacked: isPacked, isMergeable: isMergeable)).map(\.name)
      }
    }
  }

  private static func cells(_ variant: Variant) -> [Cell] {
    var cells: [Cell] = []
    for verb in Verb.allCases {
      let base = "driver.\(verb.rawValue).\(variant.ring)"
      if !variant.isMergeable {
        cells.append(Cell(name: "\(base).64.unmerged", verb: verb, bytes: 64, burst: 32))
        continue
      }
      for bytes in [64, 512, 1518] {
        cells.append(Cell(name: "\(base).\(bytes)", verb: verb, bytes: bytes, burst: 32))
      }
      for burst in [1, 8, 64] where verb != .forward {
        cells.append(Cell(name: "\(base).64.burst\(burst)", verb: verb, bytes: 64, burst: burst))
      }
    }
    return cells
  }

  private func run(
    _ variant: Variant, _ cells: [Cell], _ take: ([BenchmarkRow]) -> Void
  ) throws {
    let scratch = try ScratchFolder()
    guard let ours = try OwnFront(dpdk, scratch, variant.isPacked, variant.isMergeable) else {
      return
    }
    let options =
      ",packed_vq=\(variant.isPacked ? 1 : 0),mrg_rxbuf=\(variant.isMergeable ? 1 : 0)"
    let peer = try VirtioUser(dpdk, scratch, options)
    for cell in cells {
      let contest = Contest(
        [.init(cell.name, "Mpps", isRate: true)],
        ours: {
          try ours.set(burst: cell.burst, bytes: cell.bytes)
          return switch cell.verb {
          case .receive: try ours.receive(plan.window)
          case .transmit: try ours.transmit(plan.window)
          case .forward: try ours.forward(plan.window)
          }
        },
        peer: (
          "virtio-user",
          {
            try peer.set(burst: cell.burst, bytes: cell.bytes)
            return switch cell.verb {
            case .receive: try peer.receive(plan.window)
            case .transmit: try peer.transmit(plan.window)
            case .forward: try peer.forward(plan.window)
            }
          }
        ))
      take(try contest.measure(rounds: plan.rounds))
    }
  }

  private func runLatency(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "latency.") else { return }
    for isPacked in [false, true] {
      let scratch = try ScratchFolder()
      guard let ours = try OwnFront(dpdk, scratch, isPacked, true) else { continue }
      let back = try dpdk.startTestPMD(
        core: 0, device: "net_vhost0,iface=\(scratch.socket("peer")),queues=1")
      let port = try dpdk.startPort(
        "net_virtio_user0,path=\(scratch.path)/peer,queues=1,packed_vq=\(isPacked ? 1 : 0)")
      let prefix = isPacked ? "latency.packed" : "latency"
      let contest = Contest(
        ["p50", "p99", "p999", "p9999"].map { .init("\(prefix).\($0)", "ns", isRate: false) },
        ours: { try ours.ping(plan.window) },
        peer: (
          "virtio-user",
          { try PingPair(echo: back, port: port).ping(burst: 1, milliseconds: plan.window) }
        ))
      take(try contest.measure(rounds: plan.rounds).filter { plan.wants($0.name) })
    }
  }
}
