/// How long a run takes on a quiet machine, to be said before it begins.
struct ContestDuration {
  /// The names of the contests' first rows.
  var names: [String]
  /// Ours, the peer, the control: as many as are measured.
  var sides: Int
  /// Milliseconds of one sample beside its window, and of the start of all programs of one contest.
  var overhead: Int
  var start: Int

  static func all(withPeers: Bool) -> [ContestDuration] {
    let peer = withPeers ? 1 : 0
    let inProcess = [
      Self(
        names: names(
          "path.", ["receive.split", "receive.packed", "transmit.split"],
          ["transmit.packed", "channel"]), sides: 2, overhead: 20, start: 0),
      Self(
        names: names("pool.bulk", ["1", "1.bare", "32", "32.bare"]), sides: 2 + peer, overhead: 20,
        start: 100),
      Self(
        names: LoopContests.sendSizes.map { "zbuf.write.\($0)K" }, sides: 2, overhead: 20, start: 0
      ),
      Self(
        names: names(
          "sweep.queues.", ["rx", "idle"].flatMap { kind in (1...4).map { "\(kind).\($0)" } }),
        sides: 1, overhead: 20, start: 0),
      Self(
        names: ["realtime.quiet.p50", "realtime.hog.p50"], sides: 2, overhead: 950, start: 1000),
      Self(names: CrossLayerContests.names, sides: 2, overhead: 20, start: 20),
      Self(names: InstanceContests.names, sides: 2, overhead: 60, start: 0),
      Self(
        names: SteeringContests.names + PathContests.names, sides: 2, overhead: 20, start: 0),
      Self(names: ["channel.descriptors.32"], sides: 2 + peer, overhead: 20, start: 500),
      Self(
        names: names("channel.", ["rate.1", "rate.8", "rate.32", "rate.64", "roundtrip."]),
        sides: 1 + peer, overhead: 150, start: 1000),
      Self(names: ["handles.open"], sides: 2, overhead: 20, start: 200),
      Self(names: CommandContests.names, sides: 2, overhead: 20, start: 50),
      Self(
        names: ["startup.emulated", "startup.emulated.kernel"], sides: 1, overhead: 2600, start: 0),
    ]
    if !withPeers { return inProcess }
    return inProcess + [
      Self(
        names: [
          "host.rx.64.ring256", "host.rx.64", "host.rx.packed.64.ring256", "host.rx.packed.64",
        ], sides: 2, overhead: 350, start: 1500),
      Self(names: Sweep.ring.sizes.map(Sweep.ring.name), sides: 2, overhead: 1500, start: 0),
      Self(names: Sweep.frames.sizes.map(Sweep.frames.name), sides: 2, overhead: 200, start: 500),
      Self(names: DriverContests.names, sides: 2, overhead: 200, start: 200),
      Self(names: ["latency.p50", "latency.packed.p50"], sides: 2, overhead: 100, start: 1500),
    ]
  }

  private static func names(_ prefix: String, _ parts: [String]...) -> [String] {
    parts.flatMap { $0 }.map { prefix + $0 }
  }

  func milliseconds(_ plan: BenchmarkPlan) -> Int {
    names.count { plan.wants($0) || plan.only.hasPrefix($0) }
      * (plan.rounds * sides * (plan.window + overhead) + start)
  }
}

extension AllContests {
  /// Seconds that the run takes where nothing disturbs it.
  public var expectedSeconds: Int {
    let all = ContestDuration.all(withPeers: dpdk.isInstalled)
    return (all.reduce(0) { $0 + $1.milliseconds(plan) } + 999) / 1000
  }
}
