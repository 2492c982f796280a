import Loops

extension Sweep {
  /// What a packet costs where instances share the NIC: rows `instances.N.one.rx` and so on.
  static let instances: [(sweep: Sweep, isReceive: Bool, areAllActive: Bool)] = [
    (
      of(
        "one.rx", "instances, one of them active",
        """
        Above the exclusive path by what sharing is: headers are read, the claims are looked up, and the frame is copied once. \
        Nearly level: those that have had nothing to do of late are looked at four in a turn, of however many.
        """), true, false
    ),
    (
      of(
        "one.tx", "instances, one of them active",
        """
        Above the exclusive path by the copy of the headers and the check of where they come from; nearly level for the same \
        reason as receiving.
        """), false, false
    ),
    (
      of(
        "all.rx", "instances, all active",
        """
        The load is the same, a burst of 32 for all together, so the parts become smaller: with 64 each gets one packet in \
        every second burst. What is done once for each part, on both sides (ring indices, counts, doorbells), is then done \
        for each packet, and each instance's memory is cold again when its turn comes.
        """), true, true
    ),
    (
      of("all.tx", "instances, all active", "Grows as receiving does, for the same reasons."),
      false,
      true
    ),
  ]

  private static func of(_ kind: String, _ axis: String, _ reason: String) -> Sweep {
    Sweep(
      prefix: "instances", suffix: ".\(kind)", axis: axis, sizes: [1, 4, 16, 64], isRate: false,
      reason: reason)
  }
}

/// The path that several instances share beside that of one that has the queue pair to itself, device and instances in
/// the same thread.
struct InstanceContests {
  let plan: BenchmarkPlan

  static var names: [String] {
    Sweep.instances.flatMap { kind in kind.sweep.sizes.map(kind.sweep.name) }
  }

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    for (sweep, isReceive, areAllActive) in Sweep.instances {
      let contests = sweep.sizes.filter { plan.wants(sweep.name($0)) }.map { size in
        let active = areAllActive ? size : 1
        return Contest(
          [.init(sweep.name(size), "ns/packet", isRate: false)],
          ours: {
            isReceive
              ? try sample(SharedReceiveLoop(attached: size, active: active))
              : try sample(SharedTransmitLoop(attached: size, active: active))
          },
          peer: (
            "an exclusive queue pair",
            {
              isReceive
                ? try sample(HostReceiveLoop(.split)) : try sample(HostTransmitLoop(.split))
            }
          ))
      }
      take(try Contest.measure(contests, rounds: plan.rounds))
    }
  }

  private func sample<L: PathLoop & ~Copyable>(_ made: @autoclosure () throws -> L) throws -> Sample
  {
    pinThread(toCore: 0)
    defer { unpinThread() }
    var loop = try made()
    return try timed(&loop, milliseconds: plan.window)
  }
}
