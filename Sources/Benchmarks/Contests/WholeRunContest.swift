import Supervisor

/// `martlet run` with the emulated device, as a user runs it: time to the first answered ping, TCP through lwIP or the
/// kernel's stack to the kernel, and what the driver host keeps in memory. No peer does the same.
struct WholeRunContest {
  let plan: BenchmarkPlan

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    try run(
      "lwip",
      [
        .init("startup.emulated", "ms", isRate: false), .init("tcp.lwip", "MB/s", isRate: true),
        .init("memory.host", "MiB", isRate: false),
      ], take)
    try run(
      "kernel",
      [
        .init("startup.emulated.kernel", "ms", isRate: false),
        .init("tcp.kernel", "MB/s", isRate: true),
        .init("memory.host.kernel", "MiB", isRate: false),
      ], take)
  }

  private func run(
    _ stack: String, _ measures: [Contest.Measure], _ take: ([BenchmarkRow]) -> Void
  ) throws {
    guard measures.contains(where: { plan.wants($0.name) }) else { return }
    let contest = Contest(measures, ours: { try sample(stack) })
    take(try contest.measure(rounds: plan.rounds).filter { plan.wants($0.name) })
  }

  private func sample(_ stack: String) throws -> Sample {
    let run = try LineProcess(
      name: "martlet run", program: Programs.martlet,
      arguments: ["run", "--stack", stack, "--fetch", "100000000"])
    let host = try number("driver host ", in: run)
    let startup = try number("first ping answered ", in: run)
    let fetched = try run.line(withinMilliseconds: 60_000) { $0.hasPrefix("fetched ") }
    let words = fetched.split(separator: " ")
    guard words.count > 4, let bytes = Double(words[1]), let milliseconds = Double(words[4]),
      fetched.contains("as expected")
    else { throw SupervisorError.input("martlet run: \(fetched)") }
    let status = try readText("/proc/\(Int(host))/status")
    let kibibytes =
      status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }?
      .split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Double($0) }
    guard let kibibytes else {
      throw SupervisorError.input("the driver host's memory is not to be seen in /proc")
    }
    _ = try run.line(withinMilliseconds: 20_000) { $0.hasPrefix("counters agree") }
    return Sample([startup, bytes / milliseconds / 1000, kibibytes / 1024], cpuShare: 1)
  }

  /// The number behind these words.
  private func number(_ words: String, in run: LineProcess) throws -> Double {
    let line = try run.line(withinMilliseconds: 20_000) { $0.contains(words) }
    let parts = line.split(separator: " ")
    let count = words.split(separator: " ").count
    for index in parts.indices
    where parts[index...].prefix(count).joined(separator: " ") + " " == words {
      if index + count < parts.count, let value = Double(parts[index + count]) { return value }
    }
    throw SupervisorError.input("martlet run: \(line)")
  }
}
