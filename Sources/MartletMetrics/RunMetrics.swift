import Channel
import CoreMetrics
import Statistics

/// A run's counters for the metrics system of a program (swift-metrics): each as a `Counter` or a `Gauge`, under the names and
/// with the labels that Prometheus gets, such as `martlet_rx_packets` with `queue`.
///
/// The counters are read where they lie: what is watched is not disturbed. One thread at a time.
///
///     let metrics = try RunMetrics(socket: "/run/martlet")
///     while !metrics.isOver {
///       try metrics.publish()
///       try await Task.sleep(for: .seconds(1))
///     }
public final class RunMetrics {
  private let source: RunCounters
  private let factory: any MetricsFactory
  private var counters: [Metric: (handle: Counter, former: UInt64)] = [:]
  private var gauges: [Metric: Gauge] = [:]

  /// - Parameters:
  ///   - path: the socket of `martlet run --share` or `--control`.
  ///   - factory: where the metrics go; else where the program has set up that they do.
  /// - Throws: where the run cannot be asked or refuses.
  public init(
    socket path: String, factory: any MetricsFactory = MetricsSystem.factory
  ) throws(AdministrationError) {
    source = try RunCounters(socket: path)
    self.factory = factory
  }

  /// Whether the run has ended.
  public var isOver: Bool { source.isOver }

  /// Reads all counters and reports how they have changed since the last time; the first time, since the run began. Metrics
  /// of instances that are gone are destroyed.
  /// - Throws: where another run is at the socket by now, and cannot be asked.
  public func publish() throws(AdministrationError) {
    try source.refresh()
    var names: [Int: String] = [:]
    for instance in source.instances {
      if let slot = instance.slot { names[slot] = instance.name }
    }
    var seen = Set<Metric>()
    for (name, value) in source.read() {
      guard let metric = Metric(counter: name, instanceNames: names), seen.insert(metric).inserted
      else { continue }
      switch metric.kind {
      case .counter: count(metric, value)
      case .gauge: show(metric, Double(value))
      }
    }
    for time in source.readTimes() {
      for metric in publish(time) { seen.insert(metric) }
    }
    for metric in counters.keys where !seen.contains(metric) {
      counters.removeValue(forKey: metric)?.handle.destroy()
    }
    for metric in gauges.keys where !seen.contains(metric) {
      gauges.removeValue(forKey: metric)?.destroy()
    }
  }

  private func count(_ metric: Metric, _ value: UInt64) {
    let known =
      counters[metric]
      ?? (
        Counter(label: label(metric), dimensions: dimensions(metric), factory: factory), 0
      )
    // Another run begins anew.
    known.handle.increment(by: value >= known.former ? value - known.former : value)
    counters[metric] = (known.handle, value)
  }

  private func show(_ metric: Metric, _ value: Double) {
    let gauge =
      gauges[metric]
      ?? Gauge(label: label(metric), dimensions: dimensions(metric), factory: factory)
    gauge.record(value)
    gauges[metric] = gauge
  }

  /// Percentiles of a room's times, in nanoseconds.
  /// - Returns: as which metrics.
  private func publish(_ time: TimeSummary) -> [Metric] {
    guard time.count > 0, let place = time.place else { return [] }
    let figures = [
      ("p50", time.median), ("p99", time.percentile99), ("p99_9", time.percentile999),
      ("max", time.highest),
    ]
    return figures.map { name, value in
      let metric = Metric(
        family: "time_\(name)_nanoseconds",
        labels: [
          Metric.Label("direction", place.direction), Metric.Label("queue", place.queue),
          Metric.Label("room", place.room),
        ], kind: .gauge)
      show(metric, Double(value))
      return metric
    }
  }

  private func label(_ metric: Metric) -> String { "martlet_\(metric.family)" }

  private func dimensions(_ metric: Metric) -> [(String, String)] {
    metric.labels.map { ($0.name, $0.value) }
  }
}
