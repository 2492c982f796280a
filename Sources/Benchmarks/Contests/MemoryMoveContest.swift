import Channel
import Stacks
import Steering
import Supervisor

/// 64 MiB that come and go while an instance on a shared NIC sends: the time until they can be used, the time until they
/// are the system's again, and packets a second beside those without moves. No peer does the same.
struct MemoryMoveContest {
  let plan: BenchmarkPlan

  private static let policy = """
    [memory]
    pressure = "off"
    [default]
    claims = ["any"]
    memory = 64
    maximum-memory = 128

    """

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants(anyOf: "moves.") else { return }
    let folder = try ScratchFolder()
    let policy = folder.socket("policy.toml")
    try writeText(Self.policy, to: policy)
    let socket = folder.socket("socket")
    let run = try LineProcess(
      name: "martlet run", program: Programs.martlet,
      arguments: ["run", "--share", socket, "--policy", policy, "--stack", "none"])
    _ = try run.line(withinMilliseconds: 20_000) { $0.contains("running until") }
    let contest = Contest(
      [
        .init("moves.grow.64MiB", "us", isRate: false),
        .init("moves.shrink.64MiB", "us", isRate: false),
        .init("moves.packets.still", "k/s", isRate: true),
        .init("moves.packets.moving", "k/s", isRate: true),
      ], ours: { try sample(socket) })
    take(try contest.measure(rounds: plan.rounds).filter { plan.wants($0.name) })
  }

  private func sample(_ socket: String) throws -> Sample {
    // The supervisor has to hear first that the one before has gone, who had the same address.
    pause(milliseconds: 200)
    let environment = try InstanceEnvironment.attach(
      path: socket,
      request: AttachRequest(
        name: "bench", claims: [Claim("ipv4:10.0.0.2")].compactMap(\.self)))
    let channel = InstanceChannel(environment)
    let findings = MoveFindings()
    let stack = try MovingStack(
      environment, channel: channel, findings: findings, milliseconds: plan.window)
    var loop = InstanceLoop(stack: stack, channel: channel, mode: .poll)
    _ = try loop.run()
    func median(_ values: [UInt64]) -> Double {
      values.isEmpty ? 0 : Double(values.sorted()[values.count / 2]) / 1000
    }
    func rate(_ part: (packets: UInt64, nanoseconds: UInt64)) -> Double {
      Double(part.packets) / Double(max(1, part.nanoseconds)) * 1_000_000
    }
    return Sample(
      [
        median(findings.growth), median(findings.shrinking), rate(findings.still),
        rate(findings.moving),
      ], cpuShare: 1)
  }
}
