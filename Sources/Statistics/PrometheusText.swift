/// Counters in Prometheus' text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).
public struct PrometheusText: Sendable {
  /// The media type to serve it as.
  public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

  private var order: [String] = []
  private var families: [String: (head: String, samples: [String])] = [:]
  private var seen = Set<Metric>()

  /// - Parameter isUp: whether the run goes on: the first metric says so.
  public init(isUp: Bool) {
    families["martlet_up"] = (
      Self.head("martlet_up", "gauge", "Whether the run goes on."), ["martlet_up \(isUp ? 1 : 0)"]
    )
    order = ["martlet_up"]
  }

  /// Adds counters. Of two that would be the same metric, the first is shown.
  /// - Parameter instanceNames: by slot.
  public mutating func add(
    _ counters: [(name: String, value: UInt64)], instanceNames: [Int: String] = [:]
  ) {
    for (name, value) in counters {
      guard let metric = Metric(counter: name, instanceNames: instanceNames),
        seen.insert(metric).inserted
      else { continue }
      let isCounter = metric.kind == .counter
      let family = "martlet_\(metric.family)" + (isCounter ? "_total" : "")
      let head = Self.head(family, isCounter ? "counter" : "gauge", metric.help)
      add(family, head, ["\(family)\(Self.text(metric.labels)) \(value)"])
    }
  }

  /// Adds times, in seconds, as histograms.
  public mutating func add(_ times: [TimeSummary]) {
    let family = "martlet_time_seconds"
    for time in times {
      guard let place = time.place else { continue }
      let labels = [
        Metric.Label("direction", place.direction), Metric.Label("queue", place.queue),
        Metric.Label("room", place.room),
      ]
      var samples = zip(TimeSummary.powers, time.below).map { power, count in
        let bound = Double(UInt64(1) << UInt64(power)) / 1e9
        return "\(family)_bucket\(Self.text(labels + [Metric.Label("le", "\(bound)")])) \(count)"
      }
      samples.append(
        "\(family)_bucket\(Self.text(labels + [Metric.Label("le", "+Inf")])) \(time.count)")
      samples.append("\(family)_sum\(Self.text(labels)) \(Double(time.sum) / 1e9)")
      samples.append("\(family)_count\(Self.text(labels)) \(time.count)")
      add(
        family,
        Self.head(
          family, "histogram",
          "Time that a burst of packets stays in a room on its way: driver, host, channel, ring; of one turn in 32."
        ),
        samples)
    }
  }

  mutating func add(_ family: String, _ head: @autoclosure () -> String, _ samples: [String]) {
    if families[family] == nil {
      families[family] = (head(), [])
      order.append(family)
    }
    families[family]?.samples += samples
  }

  static func head(_ family: String, _ type: String, _ help: String) -> String {
    "# HELP \(family) \(escaped(help, quotes: false))\n# TYPE \(family) \(type)\n"
  }

  static func text(_ labels: [Metric.Label]) -> String {
    if labels.isEmpty { return "" }
    let pairs = labels.map { "\($0.name)=\"\(escaped($0.value, quotes: true))\"" }
    return "{\(pairs.joined(separator: ","))}"
  }

  private static func escaped(_ text: String, quotes: Bool) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\"" where quotes: result += "\\\""
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  /// All of it. A family's metrics lie together, behind what they mean.
  public var text: String {
    order.map { family in
      families[family].map { $0.head + $0.samples.joined(separator: "\n") + "\n" } ?? ""
    }.joined()
  }
}
