/// Horizontal bars of ratios, from 0 on, with a line at 1, as SVG 1.1.
struct RatioChart {
  struct Bar {
    var label: String
    var series: String
    var ratio: Double
  }

  var title: String
  var bars: [Bar]

  private static let left = 230.0
  private static let width = 460.0
  private static let step = 20.0

  var svg: String {
    let highest = max(2, (bars.map(\.ratio).max() ?? 0).rounded(.up))
    let scale = Self.width / highest
    let top = 48.0
    let bottom = top + Self.step * Double(bars.count)
    var lines = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"960\" height=\"\(decimal(bottom + 40, 0))\" font-family=\"sans-serif\" font-size=\"12\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>", text(16, 26, title),
    ]
    for (index, bar) in bars.enumerated() {
      let y = top + Self.step * Double(index)
      let colour = bar.ratio >= 1 ? "#1f6fb4" : "#e08214"
      lines.append(text(Self.left - 8, y + 13, bar.label, anchor: "end"))
      lines.append(
        "<rect x=\"\(Self.left)\" y=\"\(decimal(y + 3, 1))\" width=\"\(decimal(bar.ratio * scale, 1))\" height=\"14\" fill=\"\(colour)\"/>"
      )
      lines.append(
        text(
          Self.left + bar.ratio * scale + 6, y + 14, "\(decimal(bar.ratio, 2)) × \(bar.series)"))
    }
    let one = decimal(Self.left + scale, 1)
    lines.append(
      "<line x1=\"\(one)\" y1=\"\(decimal(top - 6, 1))\" x2=\"\(one)\" y2=\"\(decimal(bottom + 4, 1))\" stroke=\"black\"/>"
    )
    lines.append(text(Self.left + scale, bottom + 18, "1", anchor: "middle"))
    lines.append("</svg>")
    return lines.joined(separator: "\n") + "\n"
  }

  private func text(_ x: Double, _ y: Double, _ content: String, anchor: String = "start")
    -> String
  {
    "<text x=\"\(decimal(x, 1))\" y=\"\(decimal(y, 1))\" text-anchor=\"\(anchor)\">\(content)</text>"
  }
}
