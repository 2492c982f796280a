import ArgumentParser
import Statistics

/// What a run is set to, in the words of ethtool(8). What there is no such thing as is `n/a`, as there.
enum StatsView: String, CaseIterable, ExpressibleByArgument {
  case rings, channels, coalescing

  /// - Parameter run: as its supervisor describes it.
  func lines(of run: [String: String]) -> [String] {
    let device = run["device"] ?? "device"
    func value(_ name: String) -> String { run[name] ?? "n/a" }
    switch self {
    case .rings:
      return ["Ring parameters for \(device):", "Pre-set maximums:"]
        + Self.table([
          ("RX", "32768"), ("RX Mini", "n/a"), ("RX Jumbo", "n/a"), ("TX", "32768"),
        ]) + ["Current hardware settings, as far as the device has as many:"]
        + Self.table([
          ("RX", value("ring-size")), ("RX Mini", "n/a"), ("RX Jumbo", "n/a"),
          ("TX", value("ring-size")),
        ]) + ["Rings between host and instance:"]
        + Self.table([("RX", value("slots")), ("TX", value("slots"))])
    case .channels:
      return ["Channel parameters for \(device):", "Current hardware settings:"]
        + Self.table([("RX", "0"), ("TX", "0"), ("Other", "1"), ("Combined", value("queues"))])
    case .coalescing:
      let mode = value("mode")
      let adapts = mode == "adaptive" ? "on" : "off"
      return ["Coalesce parameters for \(device):", "Adaptive RX: \(adapts)  TX: \(adapts)"]
        + Self.table([
          ("rx-usecs", Self.microseconds(mode)), ("rx-frames", "n/a"),
          ("tx-usecs", Self.microseconds(mode)), ("tx-frames", "n/a"),
        ]) + ["Poll mode: \(mode)\(Self.meaning(mode))"]
    }
  }

  /// For how long a queue's thread looks by itself before it waits for an interrupt.
  private static func microseconds(_ mode: String) -> String {
    switch mode {
    case "adaptive": "50"
    case "interrupt": "0"
    default: "n/a"
    }
  }

  private static func meaning(_ mode: String) -> String {
    switch mode {
    case "poll", "yield": " (there are no interrupts)"
    case "adaptive": " (an interrupt is waited for after 50 us without work)"
    case "interrupt": " (an interrupt is waited for whenever there is no work)"
    default: ""
    }
  }

  private static func table(_ rows: [(String, String)]) -> [String] {
    rows.map { name, value in
      name + ":" + String(repeating: " ", count: max(1, 15 - name.count)) + value
    }
  }
}
