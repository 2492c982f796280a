extension BenchmarkReport {
  /// The rows of a group that README shows in one line.
  private struct Line {
    var title: String
    var unit: String
    /// Names, parted by how the title says: bursts, percentiles.
    var names: [String]
  }

  private static let lines: [Line] =
    [
      Line(
        title: "segment allocated and freed with reference count, 1 / 32 at a time", unit: "ns",
        names: ["pool.bulk1", "pool.bulk32"]),
      Line(
        title: "channel between processes, bursts of 1 / 8 / 32 / 64", unit: "Mpps",
        names: [1, 8, 32, 64].map { "channel.rate.\($0)" }),
      Line(
        title: "channel, round trip of 32, p50 / p99 / p99.9", unit: "ns",
        names: ["p50", "p99", "p999"].map { "channel.roundtrip.\($0)" }),
      Line(
        title: "command to the supervisor, round trip, p50 / p99 / p99.9", unit: "ns",
        names: ["p50", "p99", "p999"].map { "commands.roundtrip.\($0)" }),
      Line(title: "commands, 32 on the way", unit: "M/s", names: ["commands.rate"]),
    ]
    + ["rx", "tx", "forward"].flatMap { verb in
      ["split", "packed"].map { ring in
        Line(
          title: "driver, \(verb), \(ring), 64 / 512 / 1518 bytes", unit: "Mpps",
          names: [64, 512, 1518].map { "driver.\(verb).\(ring).\($0)" })
      }
    } + [
      Line(
        title: "whole product receives, driver host to another process, split / packed",
        unit: "Mpps",
        names: ["host.rx.64", "host.rx.packed.64"]),
      Line(
        title: "round trip of one packet, split, p50 / p99 / p99.9", unit: "ns",
        names: ["p50", "p99", "p999"].map { "latency.\($0)" }),
      Line(
        title: "round trip of one packet, packed, p50 / p99 / p99.9", unit: "ns",
        names: ["p50", "p99", "p999"].map { "latency.packed.\($0)" }),
      Line(
        title: "TCP from lwIP / the kernel stack to the kernel, emulated device", unit: "MB/s",
        names: ["tcp.lwip", "tcp.kernel"]),
      Line(
        title: "start to first ping answered, emulated device", unit: "ms",
        names: ["startup.emulated"]),
      Line(title: "memory of a driver host", unit: "MiB", names: ["memory.host"]),
    ]

  /// README's table. A line stands only where all of its rows have been measured undisturbed.
  public var markdown: String {
    var text = "| row | ours | peer | ratio |\n|---|---|---|---|"
    var disturbed: [String] = []
    for line in Self.lines {
      let found = line.names.compactMap { name in rows.first { $0.name == name } }
      guard found.count == line.names.count else { continue }
      if found.contains(where: { $0.disturbed > 0 }) {
        disturbed += line.names
        continue
      }
      let join = { (values: [String]) in values.joined(separator: " / ") }
      let number = { (value: Double) in decimal(value, value < 100 ? 1 : 0) }
      let peers = found.compactMap { $0.peerSpread.map { number($0.median) } }
      let hasPeer = peers.count == found.count
      text += "\n| \(line.title) | \(join(found.map { number($0.ours.median) })) \(line.unit) | "
      text += hasPeer ? "\(found[0].peer ?? "") \(join(peers))" : ""
      text += " | " + (hasPeer ? join(found.compactMap { $0.ratio.map { decimal($0, 2) } }) : "")
      text += " |"
    }
    if !disturbed.isEmpty {
      text += "\n\nDisturbed, to be measured again: \(disturbed.joined(separator: ", "))"
    }
    return text
  }
}
