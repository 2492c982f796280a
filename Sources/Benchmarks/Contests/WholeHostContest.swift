import Supervisor

/// Whether confinement costs anything, and how much of the kernel the driver host needs while packets come in.
struct WholeHostContest {
  let plan: BenchmarkPlan
  let dpdk: DPDK

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    let wantsRate = plan.wants("confinement.rx")
    let wantsCalls = plan.wants("syscalls.host") || plan.wants("faults.host")
    guard wantsRate || wantsCalls else { return }
    guard dpdk.isInstalled else { throw SupervisorError.input("DPDK: \(DPDK.remedy)") }
    if wantsRate { take(try measureConfinement()) }
    if wantsCalls { take(try countCalls().filter { plan.wants($0.name) }) }
  }

  /// The same driver host with and without confinement, in turn, as its own peer. The one that is not measured has nothing
  /// to do and sleeps.
  private func measureConfinement() throws -> [BenchmarkRow] {
    let scratch = try ScratchFolder()
    let confined = try ReceivingHost.start(
      dpdk, scratch, name: "confined", mode: .adaptive, isConfined: true)
    let free = try ReceivingHost.start(
      dpdk, scratch, name: "free", mode: .adaptive, isConfined: false)
    let window = 2 * plan.window
    let rows = try Contest(
      [.init("confinement.rx", "Mpps", isRate: true)],
      ours: { try confined.receive(milliseconds: window) },
      peer: ("the same host, not confined", { try free.receive(milliseconds: window) })
    ).measure(rounds: plan.rounds)
    try confined.stop()
    try free.stop()
    return rows
  }

  private func countCalls() throws -> [BenchmarkRow] {
    let scratch = try ScratchFolder()
    let host = try ReceivingHost.start(
      dpdk, scratch, name: "calls", mode: .poll, isConfined: true)
    // Everything has been touched once rings and segments have gone round.
    _ = try host.receive(milliseconds: 4 * plan.window)
    let samples = try (0..<plan.rounds).map { _ in try host.count(milliseconds: 4 * plan.window) }
    try host.stop()
    return ["syscalls.host", "faults.host"].enumerated().map { index, name in
      BenchmarkRow(
        name: name, unit: "per million packets", isRate: false,
        ours: Spread(samples.map { $0.values[index] }), rounds: plan.rounds, repeated: 0,
        disturbed: 0)
    }
  }
}
