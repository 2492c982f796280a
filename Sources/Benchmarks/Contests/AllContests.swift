import Glibc
import Supervisor

/// All that `martlet bench` measures, one group after the other.
public struct AllContests {
  let plan: BenchmarkPlan
  let dpdk: DPDK

  public init(_ plan: BenchmarkPlan, _ dpdk: DPDK) {
    self.plan = plan
    self.dpdk = dpdk
  }

  /// Hugepages of 2 MiB for four processes of DPDK's and our own memory.
  private static let pages = 4 * DPDK.megabytes / 2 + 64

  /// - Parameters:
  ///   - take: gets each row as soon as it has been measured.
  ///   - complain: gets a line for each group that could not be measured to its end.
  public func run(_ take: @escaping (BenchmarkRow) -> Void, complain: (String) -> Void) throws {
    signal(SIGPIPE, SIG_IGN)
    // They go back when this ends, also when it is killed.
    let pages = try HugepageKeeper(pages: Self.pages)
    defer { withExtendedLifetime(pages) {} }
    let rows = { (new: [BenchmarkRow]) in new.forEach(take) }
    let groups: [(name: String, run: () throws -> Void)] = [
      ("pool, path, zbuf", { try LoopContests(plan: plan, dpdk: dpdk).run(rows) }),
      ("s3", { try CrossLayerContests(plan: plan).run(rows) }),
      ("channel", { try ChannelContests(plan: plan, dpdk: dpdk).run(rows) }),
      ("handles", { try HandleContests(plan: plan).run(rows) }),
      ("commands", { try CommandContests(plan: plan).run(rows) }),
      ("moves", { try MemoryMoveContest(plan: plan).run(rows) }),
      ("startup, tcp, memory", { try WholeRunContest(plan: plan).run(rows) }),
      ("host", { try HostContests(plan: plan, dpdk: dpdk).run(rows) }),
      ("sweep", { try SweepContests(plan: plan, dpdk: dpdk).run(rows) }),
      ("steering", { try SteeringContests(plan: plan).run(rows) }),
      ("steering.receive, eyes", { try PathContests(plan: plan).run(rows) }),
      ("instances", { try InstanceContests(plan: plan).run(rows) }),
      (
        "confinement, syscalls, faults",
        { try WholeHostContest(plan: plan, dpdk: dpdk).run(rows) }
      ),
      ("realtime", { try RealTimeContest(plan: plan).run(rows) }),
      ("idle", { try IdleContest(plan: plan).run(rows) }),
      ("driver, latency", { try DriverContests(plan: plan, dpdk: dpdk).run(rows) }),
    ]
    for group in groups {
      do {
        try group.run()
      } catch {
        complain("\(group.name): \(error)")
      }
    }
  }
}
