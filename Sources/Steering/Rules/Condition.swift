/// One condition of a rule, as tests of a packet's key. All of them must hold.
struct Condition {
  /// What the packet must have for it at all: without it the others say nothing.
  var presence: WordTest?
  var first: WordTest?
  var second: WordTest?
  /// What a packet has there, for people.
  var subject: Subject

  /// How what a packet has is written, and what it is called where it is not there.
  enum Subject {
    /// Of a word, the masked bits, moved right.
    case number(String, word: Int, mask: UInt64, shift: UInt64)
    case etherType
    case station(word: Int)
    case address(word: Int, isIPv6: Bool)
    case fragment
    /// It is there, or not.
    case header(String)
  }

  @inline(__always)
  func forEachTest(_ body: (WordTest) -> Void) {
    if let presence { body(presence) }
    if let first, first.mask != 0 { body(first) }
    if let second, second.mask != 0 { body(second) }
  }
}

/// Where the headers and fields of one's own are in a key.
struct FieldPlan {
  /// By position in the set.
  private(set) var headers: [String: Int] = [:]
  /// Those that a rule asks for, in the order of their words.
  private(set) var fields: [(header: Int, bits: ProtocolDefinition.BitField)] = []
  private var places: [[String]: Int] = [:]

  /// - Parameter set: one that has been checked.
  init(_ set: RuleSet) {
    for (index, definition) in set.protocols.enumerated() { headers[definition.name] = index }
    for rule in set.rules {
      for pattern in rule.match.fields where places[[pattern.header, pattern.field]] == nil {
        guard let header = headers[pattern.header],
          let field = set.protocols[header].fields.first(where: { $0.name == pattern.field })
        else { continue }
        places[[pattern.header, pattern.field]] = fields.count
        fields.append((header, field.bits))
      }
    }
  }

  var wordCount: Int { headers.isEmpty ? PacketKey.plainWords : PacketKey.fields + fields.count }

  func place(_ pattern: FieldPattern) -> Int? { places[[pattern.header, pattern.field]] }
}

extension RuleMatch {
  /// In the order of the words of its text.
  /// - Parameter plan: of the set that the rule is in.
  func forEachCondition(_ plan: FieldPlan, _ body: (Condition) -> Void) {
    typealias Key = PacketKey
    if let etherType {
      let test = WordTest(Key.ports, mask: 0xffff << 32, low: UInt64(etherType) << 32)
      body(Condition(presence: nil, first: test, subject: .etherType))
    }
    if let vlan { body(.tag(vlan, Key.destinationStation, .tag, "VLAN tag")) }
    if let innerVLAN { body(.tag(innerVLAN, Key.sourceStation, .innerTag, "second VLAN tag")) }
    if let vlanPriority { body(.number("VLAN tag", .tag, 0, 7, 61, vlanPriority)) }
    if let sourceStation { body(.station(sourceStation, Key.sourceStation)) }
    if let destinationStation { body(.station(destinationStation, Key.destinationStation)) }
    if let source { body(.prefix(source, Key.source)) }
    if let destination { body(.prefix(destination, Key.destination)) }
    if let transport {
      body(.number("IP protocol", .transport, Key.ports, 0xff, 48, transport))
    } else if let header {
      body(
        Condition(
          presence: .bit(Key.headers, plan.headers[header] ?? 31), subject: .header(header)))
    }
    if let differentiatedServices {
      body(.number("IP", .ip, Key.contents, 0x3f, Key.servicesShift, differentiatedServices))
    }
    if let fragment { body(.fragment(fragment)) }
    if let sourcePorts { body(.range("ports", .ports, Key.ports, 0xffff, 16, sourcePorts)) }
    if let destinationPorts {
      body(.range("ports", .ports, Key.ports, 0xffff, 0, destinationPorts))
    }
    if let messageType {
      body(
        .number("ICMP message", .message, Key.contents, 0xff, Key.messageTypeShift, messageType))
    }
    if let messageCode {
      body(
        .number("ICMP message", .message, Key.contents, 0xff, Key.messageCodeShift, messageCode))
    }
    for pattern in fields { body(.field(pattern, plan.place(pattern) ?? 0)) }
  }
}

extension WordTest {
  /// With what always comes with it, and without what never does, so that rules can be compared.
  static func has(_ contents: PacketHeader.Contents) -> WordTest {
    let (more, never): (PacketHeader.Contents, PacketHeader.Contents) =
      switch contents {
      case .ip: (.transport, [])
      case .ipv4: ([.ip, .transport], .ipv6)
      case .ipv6: ([.ip, .transport], .ipv4)
      case .ports: (.transport, .message)
      case .message: (.transport, .ports)
      case .innerTag: (.tag, [])
      default: ([], [])
      }
    let bits = UInt64(contents.union(more).rawValue)
    return WordTest(PacketKey.contents, mask: bits | UInt64(never.rawValue), low: bits)
  }

  static func bit(_ word: Int, _ bit: Int) -> WordTest {
    WordTest(word, mask: 1 << UInt64(bit), low: 1 << UInt64(bit))
  }
}

extension Condition {
  fileprivate static func range(
    _ name: String, _ contents: PacketHeader.Contents, _ word: Int, _ mask: UInt64,
    _ shift: UInt64, _ values: ClosedRange<UInt16>
  ) -> Condition {
    let test = WordTest(
      word, mask: mask << shift, low: UInt64(values.lowerBound) << shift,
      span: UInt64(values.upperBound - values.lowerBound) << shift)
    return Condition(
      presence: .has(contents), first: test,
      subject: .number(name, word: word, mask: mask, shift: shift))
  }

  fileprivate static func number(
    _ name: String, _ contents: PacketHeader.Contents, _ word: Int, _ mask: UInt64,
    _ shift: UInt64, _ value: UInt8
  ) -> Condition {
    range(name, contents, word, mask, shift, UInt16(value)...UInt16(value))
  }

  fileprivate static func tag(
    _ pattern: TagPattern, _ word: Int, _ contents: PacketHeader.Contents, _ name: String
  ) -> Condition {
    switch pattern {
    case .none:
      Condition(
        first: WordTest(PacketKey.contents, mask: UInt64(contents.rawValue), low: 0),
        subject: .number(name, word: word, mask: 0xfff, shift: 48))
    case .any: Condition(presence: .has(contents), subject: .header(name))
    case .ids(let range): .range(name, contents, word, 0xfff, 48, range)
    }
  }

  fileprivate static func station(_ pattern: StationPattern, _ word: Int) -> Condition {
    Condition(
      first: WordTest(word, mask: pattern.mask, low: pattern.address), subject: .station(word: word)
    )
  }

  fileprivate static func prefix(_ prefix: AddressPrefix, _ word: Int) -> Condition {
    let masks = prefix.masks
    let isIPv6 = prefix.address.isIPv6
    return Condition(
      presence: .has(isIPv6 ? .ipv6 : .ipv4),
      first: WordTest(word, mask: masks.high, low: prefix.address.high),
      second: WordTest(word + 1, mask: masks.low, low: prefix.address.low),
      subject: .address(word: word, isIPv6: isIPv6))
  }

  fileprivate static func fragment(_ pattern: FragmentPattern) -> Condition {
    let values: ClosedRange<UInt16> =
      switch pattern {
      case .no: 0...0
      case .first: 1...1
      case .later: 2...2
      case .any: 1...2
      }
    var condition = range("IP", .ip, PacketKey.contents, 3, PacketKey.fragmentShift, values)
    condition.subject = .fragment
    return condition
  }

  fileprivate static func field(_ pattern: FieldPattern, _ place: Int) -> Condition {
    let word = PacketKey.fields + place
    return Condition(
      presence: .bit(PacketKey.headers, 32 + place),
      first: WordTest(word, mask: pattern.mask ?? .max, low: pattern.value),
      subject: .number("\(pattern.header).\(pattern.field)", word: word, mask: .max, shift: 0))
  }

  /// What the packet has instead, where the condition does not hold.
  func miss(_ key: [UInt64]) -> String? {
    let holds = { (test: WordTest?) in
      test.map { test in key.withUnsafeBufferPointer { test.holds($0.baseAddress!) } } ?? true
    }
    if !holds(presence) { return "no \(subject.name)" }
    return holds(first) && holds(second) ? nil : subject.text(key)
  }
}

extension Condition.Subject {
  fileprivate var name: String {
    switch self {
    case .number(let name, _, _, _): name
    case .etherType: "EtherType"
    case .station: "station"
    case .address(_, let isIPv6): isIPv6 ? "IPv6" : "IPv4"
    case .fragment: "IP"
    case .header(let name): name
    }
  }

  fileprivate func text(_ key: [UInt64]) -> String {
    switch self {
    case .number(_, let word, let mask, let shift): "\(key[word] >> shift & mask)"
    case .etherType: "0x" + hexadecimal(key[PacketKey.ports] >> 32 & 0xffff, digits: 4)
    case .station(let word): StationPattern.text(key[word])
    case .address(let word, true):
      NetworkAddress(ipv6High: key[word], low: key[word + 1]).description
    case .address(let word, false):
      NetworkAddress(ipv4: UInt32(truncatingIfNeeded: key[word + 1])).description
    case .fragment:
      ["no", "first", "later"][Int(min(key[PacketKey.contents] >> PacketKey.fragmentShift & 3, 2))]
    case .header(let name): name
    }
  }
}
