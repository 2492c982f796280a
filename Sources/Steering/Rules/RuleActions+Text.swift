extension RuleActions: CustomStringConvertible {
  static let keys = "to=, drop, deliver, clone=, mark=, limit=, burst=, stage="

  /// One of them at most.
  static let verdicts: Set<String> = ["to", "drop", "deliver"]

  /// - Returns: false where the word is no action.
  mutating func take(_ word: RuleWord) throws(RuleError) -> Bool {
    switch word.key {
    case "to": verdict = .to(try word.names())
    case "drop", "deliver":
      guard word.text == word.key else {
        throw word.error("has no value", "write `\(word.key)`")
      }
      verdict = word.key == "drop" ? .drop : .deliver
    case "clone": clones = try word.names()
    case "mark": mark = try word.number(0...UInt64(UInt32.max))
    case "limit": limit = try Self.limit(word)
    case "burst":
      guard limit != nil else { throw word.error("there is no limit", "add limit=") }
      limit?.burst = try word.number(1...UInt64(UInt32.max))
    case "stage": stages = try word.names()
    default: return false
    }
    return true
  }

  private static let units: [(suffix: String, unit: RateLimit.Unit, factor: UInt64)] = [
    ("pps", .packets, 1), ("kbit/s", .bits, 1000), ("mbit/s", .bits, 1_000_000),
    ("gbit/s", .bits, 1_000_000_000), ("bit/s", .bits, 1),
  ]

  /// The most that is counted a second, of either unit.
  static let maximumRate: UInt64 = 1_000_000_000_000

  private static func limit(_ word: RuleWord) throws(RuleError) -> RateLimit {
    guard let unit = units.first(where: { word.value.hasSuffix($0.suffix) }) else {
      throw word.error("has no unit", "write it as limit=1000pps or limit=10mbit/s")
    }
    let number = word.value.dropLast(unit.suffix.count)
    return RateLimit(
      try word.number(number, 1...maximumRate / unit.factor) * unit.factor, unit.unit)
  }

  public var description: String { words.joined(separator: " ") }

  var words: [String] {
    var words: [String] = []
    switch verdict {
    case .deliver: break
    case .drop: words.append("drop")
    case .to(let instances): words.append("to=" + instances.joined(separator: ","))
    }
    if !clones.isEmpty { words.append("clone=" + clones.joined(separator: ",")) }
    if let mark { words.append("mark=\(mark)") }
    if let limit {
      words.append("limit=\(limit.rate)\(limit.unit.rawValue)")
      if let burst = limit.burst { words.append("burst=\(burst)") }
    }
    if !stages.isEmpty { words.append("stage=" + stages.joined(separator: ",")) }
    return words.isEmpty ? ["deliver"] : words
  }
}
