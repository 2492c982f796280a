import Channel
import Steering

/// A configuration of `key=value` words, on one line or on several; what follows a `#` is left out. Whoever reads it takes
/// each key, and says at the end that there must be no others.
public struct StageSettings {
  private var settings: [StageSetting] = []

  /// - Throws: where a word is no `key=value`.
  public init(_ text: String) throws(StageError) {
    var number = 0
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      number += 1
      let content = line.prefix { $0 != "#" }
      for word in content.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "\r" }) {
        let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else {
          throw StageError(
            line: number, word: String(word), problem: "is no setting",
            advice: "write it as KEY=VALUE, without spaces")
        }
        settings.append(
          StageSetting(line: number, key: String(parts[0]), value: String(parts[1])))
      }
    }
  }

  /// All of a key, in their order.
  public mutating func takeAll(_ key: String) -> [StageSetting] {
    let taken = settings.filter { $0.key == key }
    settings.removeAll { $0.key == key }
    return taken
  }

  /// The one of a key; nil where there is none.
  /// - Throws: where there are two.
  public mutating func take(_ key: String) throws(StageError) -> StageSetting? {
    let taken = takeAll(key)
    if taken.count > 1 { throw taken[1].error("\(key) stands there twice", "write it once") }
    return taken.first
  }

  /// The one of a key that there must be.
  /// - Parameters:
  ///   - key: which one.
  ///   - example: of the whole setting, for who has left it out.
  public mutating func require(_ key: String, like example: String) throws(StageError)
    -> StageSetting
  {
    guard let setting = try take(key) else {
      throw StageError("\(key) is missing; write it as \(example)")
    }
    return setting
  }

  /// - Parameter keys: all that there can be, for people.
  /// - Throws: where a key has not been taken.
  public func checkEnd(_ keys: String) throws(StageError) {
    if let setting = settings.first {
      throw setting.error("there is no such setting", "settings: \(keys)")
    }
  }
}

/// A word of a configuration.
public struct StageSetting: Sendable {
  /// From 1 on.
  public var line: Int
  /// Before the `=`.
  public var key: String
  /// Behind it; not empty.
  public var value: String

  /// A word that was found elsewhere.
  public init(line: Int, key: String, value: String) {
    self.line = line
    self.key = key
    self.value = value
  }

  /// An error about it.
  public func error(_ problem: String, _ advice: String) -> StageError {
    StageError(line: line, word: "\(key)=\(value)", problem: problem, advice: advice)
  }

  /// A decimal number.
  public func number(_ range: ClosedRange<UInt64>) throws(StageError) -> UInt64 {
    try number(value, range)
  }

  /// A part of the value as a decimal number.
  public func number(
    _ text: some StringProtocol, _ range: ClosedRange<UInt64>
  ) throws(StageError) -> UInt64 {
    guard text.utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }), let number = UInt64(text),
      range.contains(number)
    else {
      throw error(
        "`\(text)` is no number from \(range.lowerBound) to \(range.upperBound)",
        "write \(key)=\(range.lowerBound), or more")
    }
    return number
  }

  /// A number with one of some units behind it; the number times its unit.
  /// - Parameters:
  ///   - units: the longer ones first where one ends with another.
  ///   - range: of the number times its unit.
  public func number(
    units: [(suffix: String, factor: UInt64)], _ range: ClosedRange<UInt64>
  ) throws(StageError) -> UInt64 {
    let names = units.map(\.suffix).joined(separator: ", ")
    guard let unit = units.first(where: { value.hasSuffix($0.suffix) }) else {
      throw error("has no unit", "write a number and one of \(names) behind it")
    }
    let number = try number(value.dropLast(unit.suffix.utf8.count), 0...UInt64.max / unit.factor)
    guard range.contains(number * unit.factor) else {
      throw error(
        "is out of range", "take a value from \(range.lowerBound) to \(range.upperBound)")
    }
    return number * unit.factor
  }

  /// An IPv4 address; a part of the value where one is given.
  public func ipv4(_ text: (some StringProtocol)? = String?.none) throws(StageError) -> UInt32 {
    let text = text.map { String($0) } ?? value
    guard let address = NetworkAddress(text), !address.isIPv6, address.isUnicast else {
      throw error("`\(text)` is no address of an interface", "write it as 10.0.0.5")
    }
    return UInt32(truncatingIfNeeded: address.low)
  }

  /// One of some words.
  public func choice<Choice: RawRepresentable<String> & CaseIterable>(
    of _: Choice.Type
  ) throws(StageError) -> Choice {
    guard let choice = Choice(rawValue: value) else {
      let all = Choice.allCases.map(\.rawValue).joined(separator: " or ")
      throw error("`\(value)` is no value of it", "write \(key)= and \(all)")
    }
    return choice
  }

  /// Which ways a stage works: `receive`, `transmit` or `both`.
  public func ways() throws(StageError) -> Set<StagedPacket.Way> {
    switch value {
    case "receive": [.receive]
    case "transmit": [.transmit]
    case "both": [.receive, .transmit]
    default: throw error("`\(value)` is no way", "write receive, transmit or both")
    }
  }
}
