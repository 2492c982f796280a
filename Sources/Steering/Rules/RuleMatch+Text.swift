extension RuleMatch: CustomStringConvertible {
  static let keys =
    "ethertype=, vlan=, inner-vlan=, vlan-priority=, source-mac=, destination-mac=, source=, destination=, protocol=, "
    + "dscp=, fragment=, source-port=, destination-port=, icmp-type=, icmp-code="

  /// EtherTypes below are lengths (IEEE 802.3, 3.2.6).
  static let lowestEtherType: UInt64 = 0x600

  private static let etherTypes: [(String, UInt16)] = [
    ("ipv4", 0x0800), ("arp", 0x0806), ("ipv6", 0x86dd),
  ]

  /// Names of IP protocols (iana.org/assignments/protocol-numbers).
  static let transports: [(name: String, number: UInt8)] = [
    ("icmp", 1), ("igmp", 2), ("tcp", 6), ("udp", 17), ("gre", 47), ("esp", 50), ("ah", 51),
    ("icmpv6", 58), ("ospf", 89), ("sctp", 132),
  ]

  /// - Returns: false where the word is no condition.
  mutating func take(_ word: RuleWord) throws(RuleError) -> Bool {
    switch word.key {
    case "ethertype":
      if let known = Self.etherTypes.first(where: { $0.0 == word.value }) {
        etherType = known.1
      } else {
        etherType = try word.number(Self.lowestEtherType...0xffff)
      }
    case "vlan": vlan = try Self.tag(word)
    case "inner-vlan": innerVLAN = try Self.tag(word)
    case "vlan-priority": vlanPriority = try word.number(0...7)
    case "source-mac": sourceStation = try word.station()
    case "destination-mac": destinationStation = try word.station()
    case "source": source = try word.prefix()
    case "destination": destination = try word.prefix()
    case "protocol": try takeTransport(word)
    case "dscp": differentiatedServices = try word.number(0...63)
    case "fragment":
      guard let pattern = FragmentPattern(rawValue: word.value) else {
        throw word.error("is not known", "write fragment=no, first, later or any")
      }
      fragment = pattern
    case "source-port": sourcePorts = try word.range(0...0xffff)
    case "destination-port": destinationPorts = try word.range(0...0xffff)
    case "icmp-type": messageType = try word.number(0...255)
    case "icmp-code": messageCode = try word.number(0...255)
    default:
      guard word.key.utf8.contains(46) else { return false }
      fields.append(try Self.field(word))
    }
    return true
  }

  private mutating func takeTransport(_ word: RuleWord) throws(RuleError) {
    if let known = Self.transports.first(where: { $0.name == word.value }) {
      transport = known.number
    } else if word.value.utf8.first.map({ (48...57).contains($0) }) == true {
      transport = try word.number(0...255)
    } else {
      header = try word.name(word.value)
    }
  }

  private static func tag(_ word: RuleWord) throws(RuleError) -> TagPattern {
    switch word.value {
    case "none": .none
    case "any": .any
    default: .ids(try word.range(0...0xfff))
    }
  }

  private static func field(_ word: RuleWord) throws(RuleError) -> FieldPattern {
    let names = word.key.split(separator: ".", omittingEmptySubsequences: false)
    guard names.count == 2 else {
      throw word.error("is no field", "write PROTOCOL.FIELD=VALUE")
    }
    let parts = word.value.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    let value = try word.number(parts.first ?? "", 0...(.max))
    return FieldPattern(
      try word.name(names[0]), try word.name(names[1]), value,
      mask: parts.count == 2 ? try word.number(parts[1], 0...(.max)) : nil)
  }

  public var description: String { words.joined(separator: " ") }

  var words: [String] {
    var words: [String] = []
    func add(_ key: String, _ value: String?) { if let value { words.append("\(key)=\(value)") } }
    add("ethertype", etherType.map { "0x" + hexadecimal($0, digits: 4) })
    add("vlan", vlan?.description)
    add("inner-vlan", innerVLAN?.description)
    add("vlan-priority", vlanPriority?.description)
    add("source-mac", sourceStation?.description)
    add("destination-mac", destinationStation?.description)
    add("source", source?.description)
    add("destination", destination?.description)
    add(
      "protocol",
      transport.map { number in
        Self.transports.first { $0.number == number }?.name ?? "\(number)"
      } ?? header)
    add("dscp", differentiatedServices?.description)
    add("fragment", fragment?.rawValue)
    add("source-port", sourcePorts.map(Self.text))
    add("destination-port", destinationPorts.map(Self.text))
    add("icmp-type", messageType?.description)
    add("icmp-code", messageCode?.description)
    return words + fields.map(\.description)
  }

  static func text(_ range: ClosedRange<UInt16>) -> String {
    range.count == 1 ? "\(range.lowerBound)" : "\(range.lowerBound)-\(range.upperBound)"
  }
}

extension TagPattern: CustomStringConvertible {
  public var description: String {
    switch self {
    case .none: "none"
    case .any: "any"
    case .ids(let range): RuleMatch.text(range)
    }
  }
}

extension StationPattern: CustomStringConvertible {
  public var description: String {
    Self.text(address) + (mask == 0xffff_ffff_ffff ? "" : "/" + Self.text(mask))
  }
}

extension AddressPrefix: CustomStringConvertible {
  public var description: String {
    "\(address)" + (length == maximumLength ? "" : "/\(length)")
  }
}

extension FieldPattern: CustomStringConvertible {
  public var description: String {
    "\(header).\(field)=\(value)" + (mask.map { "/0x" + String($0, radix: 16) } ?? "")
  }
}
