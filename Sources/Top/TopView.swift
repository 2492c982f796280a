/// The picture of a run: lines of text, as many and as wide as a terminal has.
public struct TopView {
  public var columns = 80
  public var rows = 24
  /// Whether there are colours, or nothing but text.
  public var hasColours = true
  /// Whether block elements can be shown.
  public var isUnicode = true
  public var isPaused = false
  public var showsHelp = false
  public var sort = Sort.received
  public var isReversed = false
  /// Rows of the first table of instances that are not shown.
  public var scroll = 0
  /// What is asked of the run how often, in milliseconds.
  public var interval = 1000
  /// The run is over.
  public var isOver = false
  /// What the run is.
  public var title = ""

  public init() {}

  /// What instances are sorted by.
  public enum Sort: String, CaseIterable, Sendable {
    case slot, name, received, sent, drops, processor, memory

    public var next: Sort {
      let all = Sort.allCases
      return all[(all.firstIndex(of: self)! + 1) % all.count]
    }
  }

  /// A table with a title; its rows are cut where there is no room.
  struct Section {
    var title: String
    var header: String
    var rows: [String]
    /// Whether rows beyond the room can be scrolled to.
    var scrolls = false
  }

  /// - Returns: `rows` lines of at most `columns` characters each, beside the codes for colours.
  public func lines(_ history: RunHistory) -> [String] {
    if showsHelp { return fitted(help) }
    var lines = head(history)
    let sections = [
      instanceSection(history), queueSection(history), timeSection(history), dropSection(history),
      ruleSection(history),
    ].filter { !$0.rows.isEmpty }
    lines += place(sections, in: max(0, rows - lines.count - 1))
    lines = Array(lines.prefix(max(0, rows - 1)))
    lines += Array(repeating: "", count: max(0, rows - 1 - lines.count))
    return fitted(lines + [foot])
  }

  private func fitted(_ lines: [String]) -> [String] {
    Array(lines.prefix(rows))
  }

  // MARK: Parts

  private func head(_ history: RunHistory) -> [String] {
    let state = isOver ? "  THE RUN HAS ENDED" : isPaused ? "  paused" : ""
    let total = history.total
    var lines = [style(.reverse, padded(" martlet top  \(title)\(state)", columns))]
    lines.append(
      rateLine("rx", total.receivedPackets, total.receivedBytes, history.trends["rx"] ?? []))
    lines.append(rateLine("tx", total.sentPackets, total.sentBytes, history.trends["tx"] ?? []))
    var facts = ["dropped \(Figures.short(total.drops))/s"]
    facts += history.processors.map { "\($0.name) \(Figures.percent($0.share)) %" }
    if let used = history.values["memory_used_bytes"] {
      let budget = history.values["memory_budget_bytes"] ?? 0
      facts.append(
        "instances \(Figures.bytes(used))" + (budget > 0 ? " of \(Figures.bytes(budget))" : ""))
    }
    if let bytes = history.values["memory_host_bytes"], bytes > 0 {
      facts.append("host \(Figures.bytes(bytes))")
    }
    if let captures = history.values["captures"], captures > 0 {
      let lost = history.values.filter { $0.key.hasPrefix("capture_") && $0.key.hasSuffix("_lost") }
        .values.reduce(0, &+)
      facts.append("captures \(captures)" + (lost > 0 ? ", \(lost) packets lost" : ""))
    }
    let restarts = RunHistory.restarts(history.values)
    if restarts > 0 { facts.append("restarts \(restarts)") }
    var line = facts[0]
    for fact in facts.dropFirst() where line.count + fact.count + 3 <= columns {
      line += " | " + fact
    }
    let isAlarming = total.drops >= 1
    lines.append(isAlarming ? style(.alarm, cut(line, columns)) : cut(line, columns))
    return lines
  }

  private func rateLine(
    _ name: String, _ packets: Double, _ bytes: Double, _ trend: [Double]
  ) -> String {
    let text =
      "\(name) \(right(Figures.short(packets), 6)) packets/s \(right(Figures.short(bytes * 8), 6)) bit/s  "
    let width = min(RunHistory.trendLength, columns - text.count)
    guard width > 4 else { return cut(text, columns) }
    return text
      + style(.trend, Figures.sparkline(trend, width: width, isUnicode: isUnicode))
  }

  private var foot: String {
    let order = sort.rawValue + (isReversed ? " (reversed)" : "")
    let keys = [
      "q quit", "h help", "p pause", "s sort: \(order)", "r reverse", "+/- \(interval) ms",
    ]
    .joined(separator: "  ")
    return style(.reverse, padded(" " + keys, columns))
  }

  private var help: [String] {
    [
      style(.bold, "martlet top"), "",
      "  q, Ctrl-C     end", "  p, space      pause, go on",
      "  s             sort instances by the next of: "
        + Sort.allCases.map(\.rawValue).joined(separator: ", "),
      "  r             the other way round",
      "  + and -       read more often, less often (0.25 s to 8 s)",
      "  arrows, j, k  scroll through the instances", "  h, ?          this page, and back", "",
      "  rx is what the NIC has received, tx what it has sent. An instance's rx is what",
      "  it was given, its tx what it has handed over. dropped: packets that did not",
      "  arrive, each with its reason. CPU: 100 is one core. seg: its receive segments",
      "  that the instance has now. Memory is what is set aside. Nothing that is",
      "  counted costs the path of packets anything to be shown.",
    ].map { cut($0, columns) }
  }

  // MARK: Tables

  private func instanceSection(_ history: RunHistory) -> Section {
    let sorted = history.instances.sorted { first, second in
      let order = Self.isBefore(first, second, by: sort)
      return isReversed ? Self.isBefore(second, first, by: sort) : order
    }
    let table = Table(
      columns: [
        .init("NAME", 12, isLeft: true) { $0.name },
        .init("PID", 8) { $0.process > 0 ? "\($0.process)" : "-" },
        .init("CPU%", 5) { $0.processor.map(Figures.percent) ?? "-" },
        .init("MEM", 8) { $0.memory > 0 ? Figures.bytes($0.memory) : "-" },
        .init("RX p/s", 7) { Figures.short($0.receivedPackets) },
        .init("bit/s", 6) { Figures.short($0.receivedBytes * 8) },
        .init("TX p/s", 7) { Figures.short($0.sentPackets) },
        .init("bit/s", 6) { Figures.short($0.sentBytes * 8) },
        .init("DROP/s", 7) { Figures.short($0.drops) },
        .init("SEG", 6) { $0.levels["instance"].map { Figures.short(Double($0)) } ?? "-" },
        .init("RXRING", 7) { Self.level($0, "receive") },
        .init("TXRING", 7) { Self.level($0, "transmit") },
      ], width: columns)
    return section(
      "instances, by \(sort.rawValue)", table, sorted, history, trend: { "i\($0.key)" },
      scrolls: true)
  }

  private func queueSection(_ history: RunHistory) -> Section {
    let table = Table(
      columns: [
        .init("QUEUE", 6, isLeft: true) { $0.name },
        .init("RX p/s", 7) { Figures.short($0.receivedPackets) },
        .init("bit/s", 6) { Figures.short($0.receivedBytes * 8) },
        .init("TX p/s", 7) { Figures.short($0.sentPackets) },
        .init("bit/s", 6) { Figures.short($0.sentBytes * 8) },
        .init("DROP/s", 7) { Figures.short($0.drops) },
        .init("NIC", 6) { $0.levels["device"].map { Figures.short(Double($0)) } ?? "-" },
        .init("FREE", 6) { $0.levels["host"].map { Figures.short(Double($0)) } ?? "-" },
        .init("SENDING", 8) { Self.level($0, "device") },
        .init("SLEEP/s", 8) { Figures.short($0.sleeps) },
        .init("INTR/s", 7) { Figures.short($0.interrupts) },
        .init("RXRING", 8) { Self.level($0, "receive") },
        .init("TXRING", 8) { Self.level($0, "transmit") },
      ], width: columns)
    return section(
      "queues: receive segments of the NIC and free ones, packets being sent", table,
      history.queues, history,
      trend: { "q\($0.key)" })
  }

  private func section(
    _ title: String, _ table: Table, _ rows: [RunHistory.Row], _ history: RunHistory,
    trend: (RunHistory.Row) -> String, scrolls: Bool = false
  ) -> Section {
    let room = columns - table.usedWidth - 1
    let texts = rows.map { row in
      let text = table.text(row)
      let line = row.drops >= 1 ? style(.alarm, text) : text
      guard room >= 8 else { return line }
      let spark = Figures.sparkline(
        history.trends[trend(row)] ?? [], width: min(room, 64), isUnicode: isUnicode)
      return line + " " + style(.trend, spark)
    }
    return Section(title: title, header: table.header, rows: texts, scrolls: scrolls)
  }

  private func dropSection(_ history: RunHistory) -> Section {
    let width = min(48, max(10, columns - 24))
    let rows = history.drops.map { drop in
      let text =
        padded(drop.what, width) + right("\(drop.total)", 14) + right(Figures.short(drop.rate), 8)
      return drop.rate >= 1 ? style(.alarm, cut(text, columns)) : cut(text, columns)
    }
    return Section(
      title: "dropped, by reason",
      header: cut(padded("WHAT", width) + right("TOTAL", 14) + right("/s", 8), columns), rows: rows)
  }

  private func ruleSection(_ history: RunHistory) -> Section {
    let width = min(32, max(10, columns - 46))
    func line(_ name: String, _ figures: [String]) -> String {
      cut(padded(name, width) + figures.map { right($0, 9) }.joined(), columns)
    }
    let rows = history.rules.map { rule in
      let figures = [rule.packets, rule.bytes * 8, rule.limited, rule.absent, Double(rule.total)]
      let text = line(rule.name, figures.map(Figures.short))
      return rule.limited + rule.absent >= 1 ? style(.alarm, text) : text
    }
    return Section(
      title: "rules: packets that they match; over their limits, for nobody there",
      header: line("RULE", ["p/s", "bit/s", "LIMITED/s", "ABSENT/s", "TOTAL"]), rows: rows)
  }

  private func timeSection(_ history: RunHistory) -> Section {
    func line(_ place: String, _ figures: [String]) -> String {
      cut(padded(place, 28) + figures.map { right($0, 10) }.joined(), columns)
    }
    let rows = history.times.map { time in
      let place = time.place.map { "\($0.direction) queue \($0.queue), \($0.room)" } ?? time.name
      return line(
        place,
        [time.median, time.percentile99, time.percentile999, time.highest].map {
          Figures.time(nanoseconds: $0)
        } + [Figures.short(Double(time.count))])
    }
    return Section(
      title: "time of a burst, since the start",
      header: line("WHERE", ["P50", "P99", "P99.9", "MAX", "SAMPLES"]), rows: rows)
  }

  /// Now, and the most there ever was, where that is known.
  private static func level(_ row: RunHistory.Row, _ ring: String) -> String {
    guard let now = row.levels["level \(ring)"] else { return "-" }
    return Figures.short(Double(now))
      + (row.levels["peak \(ring)"].map { "/" + Figures.short(Double($0)) } ?? "")
  }

  private static func isBefore(
    _ first: RunHistory.Row, _ second: RunHistory.Row, by sort: Sort
  ) -> Bool {
    func descending(_ value: (RunHistory.Row) -> Double) -> Bool {
      (value(first), -Double(first.key)) > (value(second), -Double(second.key))
    }
    switch sort {
    case .slot: return first.key < second.key
    case .name: return (first.name, first.key) < (second.name, second.key)
    case .received: return descending { $0.receivedBytes }
    case .sent: return descending { $0.sentBytes }
    case .drops: return descending { $0.drops }
    case .processor: return descending { $0.processor ?? 0 }
    case .memory: return descending { Double($0.memory) }
    }
  }

  // MARK: Room

  /// Each section gets its title, its header and a row; then they grow by a row in turn, until nothing is left.
  private func place(_ sections: [Section], in room: Int) -> [String] {
    var granted = [Int](repeating: 0, count: sections.count)
    var left = room
    for index in sections.indices where left >= 3 {
      granted[index] = 1
      left -= 3
    }
    // An empty line before each section where all of them fit with it.
    let missing = sections.indices.reduce(0) { $0 + sections[$1].rows.count - granted[$1] }
    let isSpacious = left >= missing + sections.count
    if isSpacious { left -= sections.count }
    var hasGrown = true
    while left > 0 && hasGrown {
      hasGrown = false
      for index in sections.indices
      where left > 0 && granted[index] > 0 && granted[index] < sections[index].rows.count {
        granted[index] += 1
        left -= 1
        hasGrown = true
      }
    }
    var lines: [String] = []
    for (section, count) in zip(sections, granted) where count > 0 {
      if isSpacious { lines.append("") }
      let all = section.rows.count
      let first = section.scrolls ? min(max(0, scroll), all - count) : 0
      let part = count < all ? " (\(first + 1) to \(first + count) of \(all))" : ""
      lines.append(style(.title, cut(section.title + part, columns)))
      lines.append(style(.bold, section.header))
      lines += section.rows[first..<(first + count)]
    }
    return lines
  }

  // MARK: Text

  enum Style: String {
    case bold = "1"
    case reverse = "7"
    case title = "36"
    case trend = "32"
    case alarm = "31"
  }

  func style(_ style: Style, _ text: String) -> String {
    hasColours ? "\u{1b}[\(style.rawValue)m\(text)\u{1b}[0m" : text
  }
}

extension RunHistory {
  static func restarts(_ values: [String: UInt64]) -> UInt64 {
    values.filter { $0.key.hasPrefix("host_restarts_") }.values.reduce(0, &+)
  }
}

/// A table of rows; columns that find no room are left out.
struct Table {
  struct Column {
    let title: String
    let width: Int
    let isLeft: Bool
    let text: (RunHistory.Row) -> String

    init(
      _ title: String, _ width: Int, isLeft: Bool = false,
      _ text: @escaping (RunHistory.Row) -> String
    ) {
      self.title = title
      self.width = width
      self.isLeft = isLeft
      self.text = text
    }

    func fit(_ text: String) -> String {
      isLeft ? padded(text, width) : right(text, width)
    }
  }

  let columns: [Column]

  /// - Parameter width: characters that there is room for.
  init(columns: [Column], width: Int) {
    var used = 0
    self.columns = columns.prefix { column in
      used += column.width + 1
      return used - 1 <= width
    }
  }

  var usedWidth: Int { columns.reduce(-1) { $0 + $1.width + 1 } }
  var header: String { columns.map { $0.fit($0.title) }.joined(separator: " ") }
  func text(_ row: RunHistory.Row) -> String {
    columns.map { $0.fit($0.text(row)) }.joined(separator: " ")
  }
}

func cut(_ text: String, _ width: Int) -> String { String(text.prefix(max(0, width))) }

func padded(_ text: String, _ width: Int) -> String {
  let short = cut(text, width)
  return short + String(repeating: " ", count: max(0, width - short.count))
}

func right(_ text: String, _ width: Int) -> String {
  let short = cut(text, width)
  return String(repeating: " ", count: max(0, width - short.count)) + short
}
