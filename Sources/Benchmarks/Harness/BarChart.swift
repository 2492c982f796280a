/// A chart of grouped bars, in panels side by side, drawn as SVG 1.1.
public struct BarChart: Sendable {
  /// One measure: for each group a bar of each series.
  public struct Panel: Sendable {
    public var title: String
    /// `values[series][group]`, not negative.
    public var values: [[Double]]
    /// How a value is written above its bar.
    public var digits: Int

    public init(title: String, values: [[Double]], digits: Int = 1) {
      self.title = title
      self.values = values
      self.digits = digits
    }
  }

  public var title: String
  public var caption: String
  public var groups: [String]
  public var series: [String]
  public var panels: [Panel]

  public init(
    title: String, caption: String, groups: [String], series: [String], panels: [Panel]
  ) {
    self.title = title
    self.caption = caption
    self.groups = groups
    self.series = series
    self.panels = panels
  }

  private static let panelWidth = 360.0
  private static let plotHeight = 220.0
  private static let top = 96.0
  private static let left = 56.0
  private static let colours = ["#7a7a7a", "#1f6fb4", "#e08214", "#2a8f4f"]

  /// The whole document.
  public var svg: String {
    let width = Self.panelWidth * Double(panels.count)
    let height = Self.top + Self.plotHeight + 64
    var lines = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(decimal(width, 0))\" height=\"\(decimal(height, 0))\" font-family=\"sans-serif\" font-size=\"12\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
      text(16, 24, title, size: 16),
    ]
    for (index, name) in series.enumerated() {
      let x = 16 + 150 * Double(index)
      lines.append(rectangle(x, 40, 12, 12, index))
      lines.append(text(x + 18, 50, name))
    }
    for (index, panel) in panels.enumerated() {
      lines += draw(panel, at: Self.panelWidth * Double(index))
    }
    lines.append(text(16, height - 12, caption))
    lines.append("</svg>")
    return lines.joined(separator: "\n") + "\n"
  }

  private func draw(_ panel: Panel, at x: Double) -> [String] {
    let step = Self.step(for: panel.values.joined().max() ?? 0)
    let highest = max(step, ((panel.values.joined().max() ?? 0) / step).rounded(.up) * step)
    let bottom = Self.top + Self.plotHeight
    let scale = Self.plotHeight / highest
    let plotWidth = Self.panelWidth - Self.left - 16
    var lines = [text(x + Self.left, Self.top - 18, panel.title, size: 13)]
    var tick = 0.0
    while tick <= highest {
      let y = bottom - tick * scale
      lines.append(
        "<line x1=\"\(decimal(x + Self.left, 1))\" y1=\"\(decimal(y, 1))\" x2=\"\(decimal(x + Self.left + plotWidth, 1))\" y2=\"\(decimal(y, 1))\" stroke=\"#dddddd\"/>"
      )
      lines.append(
        text(x + Self.left - 6, y + 4, decimal(tick, step < 1 ? 1 : 0), anchor: "end"))
      tick += step
    }
    let groupWidth = plotWidth / Double(groups.count)
    let barWidth = groupWidth * 0.8 / Double(series.count)
    for (group, label) in groups.enumerated() {
      let start = x + Self.left + groupWidth * (Double(group) + 0.1)
      for index in series.indices {
        let value = panel.values[index][group]
        let barX = start + barWidth * Double(index)
        lines.append(
          rectangle(barX, bottom - value * scale, barWidth - 2, value * scale, index))
        lines.append(
          text(
            barX + barWidth / 2 - 1, bottom - value * scale - 4, decimal(value, panel.digits),
            size: 9, anchor: "middle"))
      }
      lines.append(text(start + groupWidth * 0.4, bottom + 18, label, anchor: "middle"))
    }
    return lines
  }

  /// 1, 2 or 5 times a power of ten: about five steps.
  private static func step(for highest: Double) -> Double {
    var step = 0.1
    while true {
      for factor in [1.0, 2, 5] where highest / (step * factor) <= 6 { return step * factor }
      step *= 10
    }
  }

  private func rectangle(
    _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ colour: Int
  ) -> String {
    "<rect x=\"\(decimal(x, 1))\" y=\"\(decimal(y, 1))\" width=\"\(decimal(width, 1))\" height=\"\(decimal(height, 1))\" fill=\"\(Self.colours[colour % Self.colours.count])\"/>"
  }

  private func text(
    _ x: Double, _ y: Double, _ content: String, size: Int = 12, anchor: String = "start"
  ) -> String {
    var escaped = ""
    for character in content {
      switch character {
      case "&": escaped += "&amp;"
      case "<": escaped += "&lt;"
      case ">": escaped += "&gt;"
      default: escaped.append(character)
      }
    }
    return
      "<text x=\"\(decimal(x, 1))\" y=\"\(decimal(y, 1))\" font-size=\"\(size)\" text-anchor=\"\(anchor)\">\(escaped)</text>"
  }
}

/// A number with so many digits behind the point, rounded.
public func decimal(_ value: Double, _ digits: Int) -> String {
  var factor = 1.0
  for _ in 0..<digits { factor *= 10 }
  let scaled = Int((abs(value) * factor).rounded())
  let sign = value < 0 && scaled != 0 ? "-" : ""
  if digits == 0 { return sign + String(scaled) }
  let fraction = String(scaled % Int(factor))
  let zeros = String(repeating: "0", count: digits - fraction.count)
  return sign + String(scaled / Int(factor)) + "." + zeros + fraction
}
