/// Numbers as short as a table needs them.
enum Figures {
  /// At most five characters: 999, 1.2k, 12.3k, 123k, 1.2M.
  static func short(_ value: Double) -> String {
    var value = value
    for unit in ["", "k", "M", "G", "T", "P"] {
      if value < 999.5 || unit == "P" {
        if unit.isEmpty { return "\(Int(value.rounded()))" }
        return (value < 99.95 ? tenths(value) : "\(Int(value.rounded()))") + unit
      }
      value /= 1000
    }
    return ""
  }

  static func bytes(_ value: UInt64) -> String {
    var amount = Double(value)
    for unit in ["B", "KiB", "MiB", "GiB"] {
      if amount < 1023.5 || unit == "GiB" {
        return (amount < 9.95 && unit != "B" ? tenths(amount) : "\(Int(amount.rounded()))")
          + " \(unit)"
      }
      amount /= 1024
    }
    return ""
  }

  static func time(nanoseconds: UInt64) -> String {
    let value = Double(nanoseconds)
    if value < 1000 { return "\(nanoseconds) ns" }
    for (unit, size) in [("us", 1e3), ("ms", 1e6)] where value < size * 999.5 {
      return (value < size * 99.95 ? tenths(value / size) : "\(Int((value / size).rounded()))")
        + " \(unit)"
    }
    return tenths(value / 1e9) + " s"
  }

  static func percent(_ share: Double) -> String {
    let value = share * 100
    return value < 9.95 ? tenths(value) : "\(Int(value.rounded()))"
  }

  private static func tenths(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
  }

  /// The newest values of a history, the highest as high as can be.
  /// - Parameter isUnicode: whether block elements can be shown.
  static func sparkline(_ history: [Double], width: Int, isUnicode: Bool) -> String {
    let levels = Array(isUnicode ? "▁▂▃▄▅▆▇█" : "_.:-=+*#")
    let values = history.suffix(width)
    guard let highest = values.max() else { return String(repeating: " ", count: width) }
    let marks = values.map { value in
      highest <= 0
        ? levels[0] : levels[min(levels.count - 1, Int(value / highest * Double(levels.count)))]
    }
    return String(repeating: " ", count: width - marks.count) + String(marks)
  }
}
