import ArgumentParser
import CLinux
import Glibc
import Statistics

/// `martlet stats`: what a run has counted.
struct Stats: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what a run has counted, and how often packets were copied.",
    discussion: """
      Counters are read from the memory in which they are counted, which disturbs nobody. \
      host_restarts says how often another driver host has taken over, and why. With --share, \
      rx_iN_ and tx_iN_ are the counters of the instance in slot N. A packet that comes over queues that instances share \
      is copied once, to whom it is for; over queues of an instance's own it is not. Exit code: 1 when the run cannot be \
      asked.
      """)

  @OptionGroup var sharing: SharingOption
  @Flag(help: "Print a JSON object.") var json = false
  @Flag(help: "Print Prometheus' text format, as `martlet metrics` serves it.") var prometheus =
    false
  @Flag(
    help:
      "Again each second, with rates, until the run ends or Ctrl-C; with --json, an object a line.")
  var watch = false

  @Option(
    help: ArgumentHelp(
      "Show what the run is set to, as `ethtool -g`, `-l` or `-c` does.",
      valueName: "rings|channels|coalescing"))
  var view: StatsView?

  func validate() throws {
    if view != nil && (json || watch || prometheus) {
      throw ValidationError("--view shows no counters: leave --json, --watch and --prometheus out")
    }
    if prometheus && (json || watch) {
      throw ValidationError("--prometheus prints one page: leave --json and --watch out")
    }
  }

  func run() throws {
    try reporting {
      let source = try sharing.counters()
      if let view {
        for line in view.lines(of: source.summary) { say(line) }
        return
      }
      if prometheus { return writeAll(MetricsPage.text(of: source)) }
      var before: (values: [String: UInt64], time: UInt64)?
      while true {
        let now = monotonic_nanoseconds()
        let counters = withCopies(source.read() + source.readTimes().flatMap(\.counters))
        if json {
          RunConsole.printTotals(counters, json: true)
        } else if let before {
          show(counters, before.values, nanoseconds: now - before.time)
        } else {
          sayCopies(counters)
          RunConsole.printTotals(counters, json: false)
        }
        if !watch || source.isOver { return }
        before = (Dictionary(counters) { first, _ in first }, now)
        sleep(1)
        // A run that has ended is shown once more, as it was at its end.
        try? source.refresh()
      }
    }
  }

  /// With the sums of what was copied for instances, where there can be several.
  private func withCopies(
    _ counters: [(name: String, value: UInt64)]
  ) -> [(name: String, value: UInt64)] {
    guard counters.contains(where: { $0.name == "instances" }) else { return counters }
    func sum(_ suffix: String) -> UInt64 {
      counters.filter { $0.name.hasPrefix("rx_i") && $0.name.hasSuffix(suffix) }.reduce(0) {
        $0 &+ $1.value
      }
    }
    return [
      (name: "rx_copied_packets", value: sum("_copied_packets")),
      (name: "rx_copied_bytes", value: sum("_copied_bytes")),
    ] + counters
  }

  private func sayCopies(_ counters: [(name: String, value: UInt64)]) {
    guard let packets = counters.first(where: { $0.name == "rx_copied_packets" }) else { return }
    say(
      "\(packets.value) packets copied, 1 copy each: the instances share the queues, and a packet is whose it is only once it has come; queues of one's own (`martlet run` without --share) copy none"
    )
  }

  /// What has changed, with its rate.
  private func show(
    _ counters: [(name: String, value: UInt64)], _ before: [String: UInt64], nanoseconds: UInt64
  ) {
    say("after \(nanoseconds / 1_000_000) ms:")
    for (name, value) in counters {
      let former = before[name] ?? 0
      if value == former { continue }
      let isGauge = Metric(counter: name)?.kind == .gauge
      let rate = isGauge || value < former ? "" : "  +\(perSecond(value - former, nanoseconds))/s"
      say("  \(name) \(value)\(rate)")
    }
  }
}

/// How many a second that is.
func perSecond(_ count: UInt64, _ nanoseconds: UInt64) -> UInt64 {
  UInt64((Double(count) * 1e9 / Double(max(1, nanoseconds))).rounded())
}

/// Writes a text whole to standard output.
func writeAll(_ text: String) {
  var rest = Array(text.utf8)[...]
  while !rest.isEmpty {
    let count = rest.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
    if count <= 0 { return }
    rest = rest.dropFirst(count)
  }
}
