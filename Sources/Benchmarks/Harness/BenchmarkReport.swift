/// The rows of a run as a table, as JSON and as a plot.
public struct BenchmarkReport {
  public var rows: [BenchmarkRow] = []
  /// What stands in place of a peer that could not be run.
  public var withoutPeer: String

  public init(withoutPeer: String) { self.withoutPeer = withoutPeer }

  public static let columns = [
    "row", "unit", "ours", "lowest", "highest", "peer", "ratio", "C", "ratio", "", "compared with",
  ]

  /// A row's cells.
  public func cells(_ row: BenchmarkRow) -> [String] {
    let number = { (value: Double) in decimal(value, value < 10 ? 2 : value < 1000 ? 1 : 0) }
    var remark = ""
    if row.repeated > 0 { remark = "\(row.repeated) repeated" }
    if row.disturbed > 0 { remark += "\(remark.isEmpty ? "" : ", ")\(row.disturbed) disturbed" }
    let peer = row.peerSpread.map { number($0.median) }
    return [
      row.name, row.unit, number(row.ours.median), number(row.ours.low), number(row.ours.high),
      peer ?? "-", row.ratio.map { decimal($0, 2) } ?? "-",
      row.control.map { number($0.median) } ?? "-",
      row.controlRatio.map { decimal($0, 2) } ?? "-", remark,
      row.peer.map { peer == nil ? "\($0): \(withoutPeer)" : $0 } ?? "",
    ]
  }

  public var table: String {
    var table = TextTable(columns: Self.columns)
    for row in rows { table.add(cells(row)) }
    return table.text
  }

  /// An array with an object for each row. What was not measured is null.
  public var json: String {
    "[\n" + rows.map { "  " + object($0) }.joined(separator: ",\n") + "\n]\n"
  }

  private func object(_ row: BenchmarkRow) -> String {
    let number = { (value: Double?) in value.map { "\($0)" } ?? "null" }
    let fields: [(String, String)] = [
      ("name", quoted(row.name)), ("unit", quoted(row.unit)),
      ("value", number(row.ours.median)),
      ("peer", row.peer.map { quoted(row.peerSpread == nil ? withoutPeer : $0) } ?? "null"),
      ("peerValue", number(row.peerSpread?.median)), ("ratio", number(row.ratio)),
      ("rounds", "\(row.rounds)"), ("low", number(row.ours.low)), ("high", number(row.ours.high)),
      ("peerLow", number(row.peerSpread?.low)), ("peerHigh", number(row.peerSpread?.high)),
      ("controlValue", number(row.control?.median)), ("controlRatio", number(row.controlRatio)),
      ("repeated", "\(row.repeated)"), ("disturbed", "\(row.disturbed)"),
    ]
    return "{" + fields.map { "\"\($0.0)\": \($0.1)" }.joined(separator: ", ") + "}"
  }

  private func quoted(_ text: String) -> String {
    var result = "\""
    for character in text.unicodeScalars {
      switch character {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case _ where character.value < 32: result += " "
      default: result.unicodeScalars.append(character)
      }
    }
    return result + "\""
  }

  /// Ratios to the peers, a bar for each row; 1 is as good as the peer.
  public var svg: String {
    RatioChart(
      title: "Ours beside its peers: above 1 ours is better",
      bars: rows.flatMap { row -> [RatioChart.Bar] in
        [
          row.ratio.map { RatioChart.Bar(label: row.name, series: row.peer ?? "", ratio: $0) },
          row.controlRatio.map {
            RatioChart.Bar(label: row.name, series: "plain C", ratio: $0)
          },
        ].compactMap { $0 }
      }
    ).svg
  }
}
