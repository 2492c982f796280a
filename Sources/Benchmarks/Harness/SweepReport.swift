/// The rows of a sweep beside each other: a table, a plot, and the reason for the shape.
struct SweepReport {
  private let sweep: Sweep
  private let points: [(size: Int, row: BenchmarkRow)]

  /// - Returns: nil where fewer than two sizes have been measured.
  init?(_ sweep: Sweep, _ rows: [BenchmarkRow]) {
    self.sweep = sweep
    points = sweep.sizes.compactMap { size in
      rows.first { $0.name == sweep.name(size) }.map { (size, $0) }
    }
    if points.count < 2 { return nil }
  }

  private var hasPeer: Bool { points.contains { $0.row.peerSpread != nil } }
  private var peer: String { points[0].row.peer ?? "" }

  /// Nanoseconds a packet.
  private func time(_ value: Double) -> Double {
    sweep.isRate ? (value > 0 ? 1000 / value : 0) : value
  }

  var text: String {
    var table = TextTable(
      columns: [sweep.title, "", "Mpps", "ns/packet"]
        + (hasPeer ? ["\(peer) Mpps", "ns/packet", "ratio"] : []) + ["disturbed"])
    for (size, row) in points {
      let numbers = { (value: Double) in
        let time = time(value)
        return [decimal(time > 0 ? 1000 / time : 0, 2), decimal(time, 1)]
      }
      let peer = row.peerSpread.map { numbers($0.median) + [decimal(row.ratio ?? 0, 2)] }
      table.add(
        ["\(size)", ""] + numbers(row.ours.median) + (hasPeer ? peer ?? ["-", "-", "-"] : [])
          + [row.disturbed > 0 ? "\(row.disturbed)" : "-"])
    }
    return "\(table.text)\n\(sweep.reason)"
  }

  var fileName: String { "bench-\(sweep.title).svg" }

  var svg: String {
    let ours = points.map { $0.row.ours.median }
    let peers = points.map { $0.row.peerSpread?.median ?? 0 }
    let series = hasPeer ? [peers, ours] : [ours]
    return BarChart(
      title: "\(sweep.title): by \(sweep.axis)",
      caption: points.contains { $0.row.disturbed > 0 } ? "Some samples were disturbed." : "",
      groups: points.map { "\($0.size)" }, series: hasPeer ? [peer, "ours"] : ["ours"],
      panels: [
        .init(
          title: "Mpps",
          values: series.map { $0.map { sweep.isRate ? $0 : ($0 > 0 ? 1000 / $0 : 0) } }),
        .init(title: "ns a packet", values: series.map { $0.map(time) }),
      ]
    ).svg
  }
}

extension BenchmarkReport {
  private var sweeps: [SweepReport] { Sweep.all.compactMap { SweepReport($0, rows) } }

  /// Each sweep's table and the reason for its shape.
  public var sweepText: String {
    sweeps.map { "\n" + $0.text }.joined(separator: "\n")
  }

  /// A plot for each sweep, with the name of its file.
  public var sweepPlots: [(fileName: String, svg: String)] {
    sweeps.map { ($0.fileName, $0.svg) }
  }
}
