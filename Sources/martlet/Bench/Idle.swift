import ArgumentParser
import Benchmarks
import Glibc

/// `martlet bench idle`.
struct Idle: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "What polling, sleeping and the adaptive mode cost and give at little load.",
    discussion: """
      The whole product with the emulated device, and pings from a small program at the far end of its wire (UDP on the \
      loopback interface): at 0, 1, 10 and 50 % of the rate that the same chain answers at most. CPU is that of the driver \
      host's queue thread, latency that of a ping and its answer. Only the driver host's mode changes: the device and \
      the stack instance are adaptive. All of them and the pinging program share the machine's cores.

      Adaptive sleeps without load, as interrupt does, and polling takes all of the core that it gets. At little load \
      adaptive costs more CPU than interrupt does by the 50 us for which it polls after each packet. Where there are \
      more busy threads than cores, a thread that polls takes time from those that it waits for: that shows in p99.
      """)

  @Option(help: "Rounds, 1 to 100.") var rounds = 5
  @Flag(help: "Short samples and three rounds, to see that it works.") var quick = false
  @Option(help: "Where the rows go, as JSON.") var json = ".build/bench-idle.json"

  func run() throws {
    try reporting {
      guard (1...100).contains(rounds) else {
        throw CommandFailure(code: 64, text: "--rounds takes 1 to 100, not \(rounds)")
      }
      signal(SIGPIPE, SIG_IGN)
      var report = BenchmarkReport(withoutPeer: "")
      do {
        try IdleContest(
          plan: BenchmarkPlan(
            rounds: quick ? min(3, rounds) : rounds, window: quick ? 60 : 250, only: "")
        ).run { report.rows += $0 }
        try writeText(report.json, to: json)
      } catch {
        throw CommandFailure.failed(error)
      }
      writeLine(table(report.rows), to: 1)
      writeLine("rows: \(json)", to: 1)
    }
  }

  private func table(_ rows: [BenchmarkRow]) -> String {
    var values: [String: BenchmarkRow] = [:]
    for row in rows { values[row.name] = row }
    let full = values["idle.full"].map { decimal($0.ours.median, 0) } ?? "-"
    let columns = [("cpu", "CPU %"), ("p50", "p50 us"), ("p99", "p99 us"), ("p999", "p99.9 us")]
    var table = TextTable(
      columns: ["mode", "load %"] + columns.map(\.1) + ["lost %", "disturbed"])
    for mode in IdleContest.modes {
      for load in IdleContest.loads {
        let name = "idle.\(mode).\(load)."
        func cell(_ measure: String) -> String {
          values[name + measure].map { decimal($0.ours.median, 1) } ?? "-"
        }
        let disturbed = values[name + "cpu"].map { "\($0.disturbed) of \($0.rounds)" } ?? "-"
        table.add(
          [mode.rawValue, "\(load)"] + columns.map { cell($0.0) } + [cell("lost"), disturbed])
      }
    }
    return "full rate: \(full) pings a second\n" + table.text
  }
}
