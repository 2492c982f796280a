import ArgumentParser
import Benchmarks

/// `martlet bench`: measurements that anyone can repeat.
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure everything, or one thing, with its counterpart in the same run.",
    subcommands: [BenchAll.self, Idle.self, Instructions.self, EarlyDelivery.self],
    defaultSubcommand: BenchAll.self)
}

/// `martlet bench`, with all rows or some.
struct BenchAll: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "all",
    abstract: "Pool, channel, driver and latency beside DPDK and plain C.",
    discussion: """
      Ours and its peers are measured in turn, round after round, and the median is shown with the lowest and the \
      highest round. A ratio above 1 means that ours is better, whatever the unit. A sample during which a busy thread \
      had less than 93 % of its core is taken again, twice at most; the table says how often, and how many samples \
      stayed disturbed. Peers need DPDK (`make bench` installs it). Hugepages are taken for the run and given back.
      """)

  @Option(help: "Rows whose names begin so, such as pool or driver.rx.") var only = ""
  @Option(help: "Rounds, 1 to 100.") var rounds = 5
  @Flag(help: "Short samples and one round, in 3 minutes at most, to see that it works.")
  var quick = false
  @Option(help: "Where the programs of `make peers` are.") var peers = ".build/peers"
  @Option(help: "Where the rows go, as JSON.") var json = ".build/bench.json"
  @Option(help: "Where the plot goes; those of sweeps lie beside it.") var svg = ".build/bench.svg"
  @Flag(help: "Print README's rows instead of the table. Disturbed ones are left out, and named.")
  var markdown = false

  func run() throws {
    try reporting {
      guard (1...100).contains(rounds) else {
        throw CommandFailure(code: 64, text: "--rounds takes 1 to 100, not \(rounds)")
      }
      let plan = BenchmarkPlan(
        rounds: quick ? 1 : rounds, window: quick ? 100 : 300, only: only)
      do {
        try measure(plan)
      } catch let failure as CommandFailure {
        throw failure
      } catch {
        throw CommandFailure.failed(error)
      }
    }
  }

  private func measure(_ plan: BenchmarkPlan) throws {
    let dpdk = DPDK(programs: peers)
    var report = BenchmarkReport(withoutPeer: DPDK.remedy)
    if !dpdk.isInstalled { writeLine("DPDK: \(DPDK.remedy)", to: 2) }
    var failures = 0
    let contests = AllContests(plan, dpdk)
    writeLine(
      "about \(max(1, contests.expectedSeconds)) s, more where samples have to be repeated", to: 2)
    try contests.run { row in
      report.rows.append(row)
      writeLine(progress(row), to: 2)
    } complain: { line in
      failures += 1
      writeLine("martlet bench: \(line)", to: 2)
    }
    guard !report.rows.isEmpty || failures > 0 else {
      throw CommandFailure(
        code: 64,
        text: "no row that can be measured here begins with \(only)")
    }
    writeLine(markdown ? report.markdown : report.table, to: 1)
    try writeText(report.json, to: json)
    try writeText(report.svg, to: svg)
    if !markdown && !report.sweepText.isEmpty { writeLine(report.sweepText + "\n", to: 1) }
    let folder = svg.split(separator: "/", omittingEmptySubsequences: false).dropLast()
    for plot in report.sweepPlots {
      try writeText(plot.svg, to: (folder + [plot.fileName[...]]).joined(separator: "/"))
    }
    writeLine("rows: \(json), plot: \(svg)", to: 1)
    if failures > 0 { throw CommandFailure(code: 1, text: "not everything could be measured") }
  }

  private func progress(_ row: BenchmarkRow) -> String {
    let ratio = row.ratio.map { ", \(decimal($0, 2)) × \(row.peer ?? "")" } ?? ""
    let control = row.controlRatio.map { ", \(decimal($0, 2)) × C" } ?? ""
    return "\(row.name): \(decimal(row.ours.median, 2)) \(row.unit)\(ratio)\(control)"
  }
}

/// The other ends of benchmarks, in processes of their own.
struct BenchEnd: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench-end", shouldDisplay: false,
    subcommands: [
      Channel.self, Commands.self, CommandPairing.self, AttachedCommands.self, Driver.self,
      Scratch.self, Handles.self, RegisteredSending.self, MemoryOwner.self, MemoryReader.self,
      PatternReceiver.self,
    ])

  /// An instance that sends from memory that it has registered.
  struct RegisteredSending: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "registered-sender")

    @Argument var socket: String
    @Argument var far: String
    @Argument var megabytes: Int
    @Argument var reader: UInt32

    func run() throws {
      try reporting {
        try failing {
          try RegisteredSender.run(socket: socket, far: far, megabytes: megabytes, reader: reader)
        }
      }
    }
  }

  struct MemoryOwner: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "memory-owner")

    @Argument var socket: String
    @Argument var receiver: Int32

    func run() throws {
      try reporting { try failing { try RegisteredPeers.own(socket: socket, receiver: receiver) } }
    }
  }

  struct MemoryReader: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "memory-reader")

    @Argument var socket: String
    @Argument var handle: String
    @Argument var byteCount: Int

    func run() throws {
      try reporting {
        try failing {
          try RegisteredPeers.read(socket: socket, handle: handle, byteCount: byteCount)
        }
      }
    }
  }

  struct PatternReceiver: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "pattern-receiver")

    @Argument var byteCount: Int

    func run() throws {
      try reporting { try failing { try RegisteredPeers.receive(byteCount: byteCount) } }
    }
  }

  struct Channel: ParsableCommand {
    func run() throws { try reporting { try failing { try ChannelInstanceSide.run() } } }
  }

  struct Handles: ParsableCommand {
    func run() throws { try reporting { try failing { try HandleOwnerSide.run() } } }
  }

  struct Commands: ParsableCommand {
    @Argument var credentials: [UInt64]

    func run() throws {
      try reporting { try failing { try CommandClientSide.run(credentials: credentials) } }
    }
  }

  /// Commands of an instance that attaches to a supervisor that runs.
  struct AttachedCommands: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "attached-commands")

    @Argument var socket: String
    @Argument var count: Int

    func run() throws {
      try reporting { try failing { try AttachedCommandClient.run(socket: socket, count: count) } }
    }
  }

  /// Both ends, for a number of commands.
  struct CommandPairing: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "command-pair")

    @Argument var count: Int

    func run() throws { try reporting { try failing { try CommandPair().exchange(count) } } }
  }

  struct Scratch: ParsableCommand {
    @Argument var path: String

    func run() { ScratchFolder.keep(path) }
  }

  struct Driver: ParsableCommand {
    @Option var socket: String
    @Option var ringSize = 256
    @Flag var packed = false
    @Flag var unmerged = false

    func run() throws {
      try reporting {
        try failing {
          try DriverFront.run(
            socket: socket, isPacked: packed, isMergeable: !unmerged, ringSize: ringSize)
        }
      }
    }
  }
}

/// Any error as a failure of the command.
private func failing(_ body: () throws -> Void) throws {
  do {
    try body()
  } catch {
    throw CommandFailure.failed(error)
  }
}
