/// A word of a rule's text, `KEY=VALUE`, and what can be read from its value.
struct RuleWord {
  let line: Int?
  let text: String
  let key: String
  /// Empty where there is no `=`.
  let value: String

  init(_ text: Substring, line: Int?) {
    self.line = line
    self.text = String(text)
    let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    key = String(parts.first ?? "")
    value = parts.count == 2 ? String(parts[1]) : ""
  }

  func error(_ problem: String, _ advice: String) -> RuleError {
    RuleError(line: line, word: text, problem: problem, advice: advice)
  }

  /// Decimal, or hexadecimal behind `0x`.
  static func number(_ text: some StringProtocol) -> UInt64? {
    let isHexadecimal = text.hasPrefix("0x")
    let digits = isHexadecimal ? text.dropFirst(2) : text[...]
    guard digits.utf8.allSatisfy({ $0 != 43 && $0 != 45 }) else { return nil }
    return UInt64(digits, radix: isHexadecimal ? 16 : 10)
  }

  func number(_ text: some StringProtocol, _ range: ClosedRange<UInt64>) throws(RuleError) -> UInt64
  {
    guard let number = Self.number(text), range.contains(number) else {
      throw error(
        "`\(text)` is no number from \(range.lowerBound) to \(range.upperBound)",
        "write it decimal, or hexadecimal as 0x1f")
    }
    return number
  }

  func number<N: FixedWidthInteger>(
    _ range: ClosedRange<UInt64>, as _: N.Type = N.self
  ) throws(RuleError) -> N {
    N(truncatingIfNeeded: try number(value, range))
  }

  /// A number, or two with `-` between.
  func range(_ bounds: ClosedRange<UInt64>) throws(RuleError) -> ClosedRange<UInt16> {
    let ends = value.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
    let first = try number(ends.first ?? "", bounds)
    let last = ends.count == 2 ? try number(ends[1], bounds) : first
    guard first <= last else {
      throw error("the range ends before it begins", "write the lower number first")
    }
    return UInt16(truncatingIfNeeded: first)...UInt16(truncatingIfNeeded: last)
  }

  func name(_ text: some StringProtocol, allowsDot: Bool = false) throws(RuleError) -> String {
    guard Self.isName(text, allowsDot: allowsDot) else {
      throw error(
        "`\(text)` is no name", "names are 1 to 32 letters, digits, - and _")
    }
    return String(text)
  }

  static func isName(_ text: some StringProtocol, allowsDot: Bool = false) -> Bool {
    (1...32).contains(text.utf8.count)
      && text.utf8.allSatisfy {
        switch $0 {
        case 48...57, 65...90, 97...122, 45, 95: true
        case 46: allowsDot
        default: false
        }
      }
  }

  /// Names with commas between, none twice. Instances may have a dot in theirs.
  func names() throws(RuleError) -> [String] {
    var names: [String] = []
    for part in value.split(separator: ",", omittingEmptySubsequences: false) {
      let name = try name(part, allowsDot: true)
      if names.contains(name) { throw error("\(name) stands there twice", "name each once") }
      names.append(name)
    }
    return names
  }

  /// An IPv4 or IPv6 address, with the length of a prefix or whole.
  func prefix() throws(RuleError) -> AddressPrefix {
    let parts = value.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let address = NetworkAddress(String(parts.first ?? "")) else {
      throw error(
        "`\(parts.first ?? "")` is no IP address", "write it as 10.0.0.0/8 or 2001:db8::/32")
    }
    var prefix = AddressPrefix(address, length: address.isIPv6 ? 128 : 32)
    if parts.count == 2 {
      prefix.length = UInt8(try number(parts[1], 0...UInt64(prefix.maximumLength)))
    }
    let begin = prefix.begin
    guard begin == address else {
      throw error(
        "the address has bits behind its prefix", "write \(begin)/\(prefix.length)")
    }
    return prefix
  }

  /// An Ethernet address, alone, with the length of a prefix, or with a mask.
  func station() throws(RuleError) -> StationPattern {
    let parts = value.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let address = Self.station(parts.first ?? "") else {
      throw error("`\(parts.first ?? "")` is no Ethernet address", "write it as 52:54:00:12:34:56")
    }
    var pattern = StationPattern(address)
    if parts.count == 2 {
      if let mask = Self.station(parts[1]) {
        pattern.mask = mask
      } else {
        let length = try number(parts[1], 0...48)
        pattern.mask = ~(0xffff_ffff_ffff >> length) & 0xffff_ffff_ffff
      }
    }
    guard address & ~pattern.mask == 0 else {
      throw error(
        "the address has bits outside its mask",
        "write \(StationPattern.text(address & pattern.mask))/\(StationPattern.text(pattern.mask))")
    }
    return pattern
  }

  /// Six bytes with colons between.
  static func station(_ text: some StringProtocol) -> UInt64? {
    let bytes = text.split(separator: ":", omittingEmptySubsequences: false)
    guard bytes.count == 6 else { return nil }
    var address: UInt64 = 0
    for byte in bytes {
      guard byte.utf8.count == 2, byte.utf8.first != 43, let value = UInt8(byte, radix: 16) else {
        return nil
      }
      address = address << 8 | UInt64(value)
    }
    return address
  }
}

extension AddressPrefix {
  /// The address without what is behind the prefix.
  var begin: NetworkAddress {
    let masks = masks
    return address.isIPv6
      ? NetworkAddress(ipv6High: address.high & masks.high, low: address.low & masks.low)
      : NetworkAddress(ipv4: UInt32(truncatingIfNeeded: address.low & masks.low))
  }
}

extension StationPattern {
  static func text(_ address: UInt64) -> String {
    (0..<6).map { hexadecimal(address >> UInt64(40 - 8 * $0) & 0xff, digits: 2) }
      .joined(separator: ":")
  }
}

/// Lower case, with zeros in front.
func hexadecimal(_ number: some BinaryInteger, digits: Int) -> String {
  let text = String(number, radix: 16)
  return String(repeating: "0", count: max(0, digits - text.count)) + text
}
