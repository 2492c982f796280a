import Statistics

/// What a run does, from its counters read again and again: how much a second, and how it was before.
public struct RunHistory {
  /// One reading.
  public struct Reading {
    /// In nanoseconds of the monotonic clock.
    public var time: UInt64
    public var counters: [(name: String, value: UInt64)]
    public var instances: [RunCounters.Instance]
    /// Processor time in nanoseconds, by process.
    public var processorTime: [UInt64: UInt64]
    public var times: [TimeSummary]

    public init(
      time: UInt64, counters: [(name: String, value: UInt64)],
      instances: [RunCounters.Instance] = [], processorTime: [UInt64: UInt64] = [:],
      times: [TimeSummary] = []
    ) {
      self.time = time
      self.counters = counters
      self.instances = instances
      self.processorTime = processorTime
      self.times = times
    }
  }

  /// A queue of the host, or an instance.
  struct Row: Equatable {
    var key = 0
    var name = ""
    var process: UInt64 = 0
    var receivedPackets = 0.0
    var receivedBytes = 0.0
    var sentPackets = 0.0
    var sentBytes = 0.0
    var drops = 0.0
    var sleeps = 0.0
    var interrupts = 0.0
    var memory: UInt64 = 0
    /// 1 is a whole core.
    var processor: Double?
    /// What there is of each, now: segments by owner, rings by name.
    var levels: [String: UInt64] = [:]
  }

  /// Something that was dropped or went wrong, and why.
  struct Drop: Equatable {
    var what: String
    var total: UInt64
    var rate: Double
  }

  /// A steering rule: what it matched, and what of that it did not let through, each a second.
  struct RuleRow: Equatable {
    var name: String
    var packets = 0.0
    var bytes = 0.0
    var limited = 0.0
    var absent = 0.0
    /// Packets since it was set.
    var total: UInt64 = 0
  }

  private(set) var queues: [Row] = []
  private(set) var instances: [Row] = []
  private(set) var drops: [Drop] = []
  /// Those that match most now come first.
  private(set) var rules: [RuleRow] = []
  /// Since the run began.
  private(set) var times: [TimeSummary] = []
  /// Gauges and totals that belong to no queue and no instance.
  private(set) var values: [String: UInt64] = [:]
  /// Of the whole run.
  private(set) var total = Row()
  private(set) var processors: [(name: String, share: Double)] = []
  /// Rates of received and sent bytes, by `rx`, `tx`, `q0`, `i0`.
  private(set) var trends: [String: [Double]] = [:]
  private var before: Reading?
  private var formerValues: [String: UInt64] = [:]
  private var metrics: [String: Metric] = [:]

  static let trendLength = 128

  public init() {}

  public mutating func add(_ reading: Reading) {
    let seconds = before.map { Double(reading.time - min($0.time, reading.time)) / 1e9 } ?? 0
    var queues: [Int: Row] = [:]
    var instances: [Int: Row] = [:]
    for instance in reading.instances {
      let key = instance.slot ?? -1
      instances[key] = Row(
        key: key, name: instance.name.isEmpty ? "(one)" : instance.name,
        process: UInt64(instance.pid))
    }
    var drops: [Drop] = []
    var rules: [RuleRow] = []
    var values: [String: UInt64] = [:]
    var seen: [String: UInt64] = [:]
    for (name, value) in reading.counters {
      guard seen[name] == nil else { continue }
      seen[name] = value
      guard let metric = metric(name) else {
        values[name] = value
        continue
      }
      let change = value &- min(value, formerValues[name] ?? (before == nil ? value : 0))
      let rate = seconds > 0 ? Double(change) / seconds : 0
      let reason = metric.labels.first { $0.name == "reason" }?.value
      let isDrop = metric.kind == .counter && Self.isDrop(metric.family)
      if metric.family.hasPrefix("rule_"), let rule = metric.labels.first?.value {
        // The counters of a rule follow one another.
        if rules.last?.name != rule { rules.append(RuleRow(name: rule)) }
        rules[rules.count - 1].note(metric.family, value, rate)
      } else if let queue = metric.number("queue") {
        queues[queue, default: Row(key: queue, name: "\(queue)")].note(metric, value, rate, isDrop)
      } else if let slot = metric.number("instance") {
        instances[slot]?.note(metric, value, rate, isDrop)
      } else {
        values[name] = value
        // The only instance of a run that is not shared.
        if instances[-1] != nil, metric.family.hasPrefix("stack_") {
          var own = metric
          own.family = "instance_" + metric.family.dropFirst("stack_".count)
          instances[-1]?.note(own, value, rate, isDrop)
        }
      }
      if isDrop && value > 0 {
        let place = metric.labels.first { ["queue", "instance"].contains($0.name) }
        let family = metric.family.replacing("instance_", with: "")
        let owner = metric.number("instance").flatMap { instances[$0]?.name } ?? ""
        drops.append(
          Drop(
            what: [
              family.replacing("_", with: " "), reason.map { $0.replacing("_", with: " ") },
              place.map {
                $0.name == "queue"
                  ? "queue \($0.value)" : owner.isEmpty ? "instance \($0.value)" : owner
              },
            ].compactMap(\.self).joined(separator: ", "), total: value, rate: rate))
      }
    }
    let keyed = instances.mapValues { row in
      var row = row
      row.processor = processor(row.process, reading, seconds)
      return row
    }
    self.queues = queues.values.sorted { $0.key < $1.key }
    self.instances = keyed.values.sorted { $0.key < $1.key }
    self.drops = drops.sorted { ($0.rate, Double($0.total)) > ($1.rate, Double($1.total)) }
    self.rules = rules.sorted {
      ($0.packets, Double($0.total)) > ($1.packets, Double($1.total))
    }
    self.values = values
    times = reading.times.filter { $0.count > 0 }
    total = Self.sum(self.queues)
    total.drops = drops.reduce(0) { $0 + $1.rate }
    processors = ["host", "device", "supervisor"].compactMap { name in
      processor(values["\(name)_process"] ?? 0, reading, seconds).map { (name, $0) }
    }
    formerValues = seen
    if before != nil { noteTrends() }
    before = reading
  }

  private mutating func noteTrends() {
    var now: [String: Double] = ["rx": total.receivedBytes, "tx": total.sentBytes]
    for row in queues { now["q\(row.key)"] = row.receivedBytes + row.sentBytes }
    for row in instances { now["i\(row.key)"] = row.receivedBytes + row.sentBytes }
    for (key, value) in now {
      trends[key] = (trends[key] ?? []).suffix(Self.trendLength - 1) + [value]
    }
    for key in trends.keys where now[key] == nil { trends[key] = nil }
  }

  private mutating func metric(_ name: String) -> Metric? {
    if let known = metrics[name] { return known }
    let metric = Metric(counter: name)
    if metrics.count < 10_000 { metrics[name] = metric }
    return metric
  }

  private func processor(_ process: UInt64, _ reading: Reading, _ seconds: Double) -> Double? {
    guard process > 0, seconds > 0, let now = reading.processorTime[process],
      let former = before?.processorTime[process]
    else { return nil }
    return Double(now - min(now, former)) / 1e9 / seconds
  }

  private static func sum(_ rows: [Row]) -> Row {
    rows.reduce(into: Row()) {
      $0.receivedPackets += $1.receivedPackets
      $0.receivedBytes += $1.receivedBytes
      $0.sentPackets += $1.sentPackets
      $0.sentBytes += $1.sentBytes
      $0.sleeps += $1.sleeps
      $0.interrupts += $1.interrupts
    }
  }

  /// Whether a counter is of packets that did not arrive.
  private static func isDrop(_ family: String) -> Bool {
    ["dropped", "errors", "lost", "missed", "malformed", "oversized", "rx_bad"].contains {
      family.hasSuffix($0)
    }
  }
}

extension RunHistory.Row {
  fileprivate mutating func note(
    _ metric: Metric, _ value: UInt64, _ rate: Double, _ isDrop: Bool
  ) {
    let name =
      metric.family.hasPrefix("instance_")
      ? String(metric.family.dropFirst("instance_".count)) : metric.family
    switch name {
    case "rx_packets": receivedPackets = rate
    case "rx_bytes": receivedBytes = rate
    case "tx_packets": sentPackets = rate
    case "tx_bytes": sentBytes = rate
    case "sleeps": sleeps = rate
    case "interrupts": interrupts = rate
    case "memory_bytes": memory = value
    case "rx_segments", "ring_level", "ring_peak":
      let label = metric.labels.last?.value ?? ""
      levels[name == "rx_segments" ? label : "\(name.dropFirst(5)) \(label)"] = value
    default: if isDrop { drops += rate }
    }
  }
}

extension RunHistory.RuleRow {
  fileprivate mutating func note(_ family: String, _ value: UInt64, _ rate: Double) {
    switch family {
    case "rule_packets":
      packets = rate
      total = value
    case "rule_bytes": bytes = rate
    case "rule_limited": limited = rate
    case "rule_absent": absent = rate
    default: break
    }
  }
}

extension Metric {
  fileprivate func number(_ label: String) -> Int? {
    labels.first { $0.name == label }.flatMap { Int($0.value) }
  }
}
