extension RuleSet {
  /// - Throws: the first thing that cannot stand in a set: a name twice, a protocol or a field that is not defined,
  ///   conditions that no packet can fulfil together.
  public func check() throws(RuleError) { try check(([], [])) }

  /// - Parameter lines: of protocols and rules; empty where they were not read from a text.
  func check(_ lines: (protocols: [Int], rules: [Int])) throws(RuleError) {
    func refuse(
      _ lines: [Int], _ index: Int, _ word: String, _ problem: String, _ advice: String
    ) -> RuleError {
      let line = lines.indices.contains(index) ? lines[index] : nil
      return RuleError(line: line, word: word, problem: problem, advice: advice)
    }
    if protocols.count > Self.maximumProtocols {
      throw refuse(
        lines.protocols, Self.maximumProtocols, "protocol", "there are \(protocols.count) of them",
        "define \(Self.maximumProtocols) at most")
    }
    if rules.count > Self.maximumRules {
      throw refuse(
        lines.rules, Self.maximumRules, "rule", "there are \(rules.count) of them",
        "write \(Self.maximumRules) at most")
    }
    var definitions: [String: ProtocolDefinition] = [:]
    var places: Set<ProtocolPlace> = []
    for (index, definition) in protocols.enumerated() {
      if let problem = definition.problem {
        throw refuse(lines.protocols, index, definition.name, problem.0, problem.1)
      }
      if definitions.updateValue(definition, forKey: definition.name) != nil {
        throw refuse(
          lines.protocols, index, definition.name, "is defined already", "choose another name")
      }
      for place in definition.places where !places.insert(place).inserted {
        throw refuse(
          lines.protocols, index, definition.name,
          "\(place.layer) type \(place.type) is another protocol's", "choose another type")
      }
    }
    for (index, definition) in protocols.enumerated() {
      if let problem = definition.problem(among: protocols) {
        throw refuse(lines.protocols, index, definition.name, problem.0, problem.1)
      }
    }
    var names: Set<String> = []
    names.reserveCapacity(rules.count)
    var asked: Set<[String]> = []
    for (index, rule) in rules.enumerated() {
      if let problem = rule.problem ?? rule.match.problem(definitions) {
        throw refuse(lines.rules, index, rule.name, problem.0, problem.1)
      }
      if !names.insert(rule.name).inserted {
        throw refuse(
          lines.rules, index, rule.name, "there is a rule of that name", "choose another")
      }
      for field in rule.match.fields { asked.insert([field.header, field.field]) }
      if asked.count > Self.maximumFields {
        throw refuse(
          lines.rules, index, rule.name, "rules ask for more than \(Self.maximumFields) fields",
          "ask for fewer of them")
      }
    }
  }
}

/// Where a protocol is looked for.
struct ProtocolPlace: Hashable {
  var layer: ProtocolDefinition.Layer
  var type: UInt64
}

private typealias Problem = (String, String)

extension ProtocolDefinition {
  /// Above IP it may have two.
  var places: [ProtocolPlace] {
    let layers: [Layer] = layer == .ip ? [.ipv4, .ipv6] : [layer]
    return layers.map { ProtocolPlace(layer: $0, type: type) }
  }

  private static let reserved: Set<String> = ["ethernet", "ipv4", "ipv6", "ip", "arp"]

  /// What is wrong with it by itself.
  fileprivate var problem: Problem? {
    if !RuleWord.isName(name) {
      return ("is no name", "names are 1 to 32 letters, digits, - and _")
    }
    if Self.reserved.contains(name) || RuleMatch.transports.contains(where: { $0.name == name })
      || (48...57).contains(name.utf8.first ?? 0)
    {
      return ("means something else already", "choose another name, with a letter first")
    }
    let known: Set<UInt64> =
      switch layer {
      case .ethernet: [0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 0x9100]
      case .ipv4: [1, 6, 17, 132]
      case .ipv6, .ip: [0, 1, 6, 17, 43, 44, 58, 60, 132]
      default: []
      }
    if known.contains(type) { return ("type \(type) is understood already", "choose another type") }
    let types: ClosedRange<UInt64> =
      switch layer {
      case .ethernet: RuleMatch.lowestEtherType...0xffff
      case .ipv4, .ipv6, .ip: 0...255
      case .udp, .tcp: 0...0xffff
      case .own: 0...(.max)
      }
    if !types.contains(type) {
      return (
        "there is no type \(type) above \(layer)",
        "write one from \(types.lowerBound) to \(types.upperBound)"
      )
    }
    var parts = fields.map { ("field \($0.name)", $0.bits) }
    if let next { parts.append(("next=", next.number)) }
    switch headerLength {
    case .fixed(let bytes):
      if !(1...PacketHeader.maximumBytes).contains(bytes) {
        return ("a header has 1 to \(PacketHeader.maximumBytes) bytes", "write header=BYTES")
      }
      if let outside = parts.first(where: { $0.1.end > bytes }) {
        return (
          "\(outside.0) lies outside the header of \(bytes) bytes",
          "move it, or make the header longer"
        )
      }
    case .variable(let bits, let scale, let add):
      parts.append(("header=", bits))
      if !(1...PacketHeader.maximumBytes).contains(scale)
        || !(0...PacketHeader.maximumBytes).contains(add)
      {
        return (
          "the header's scale is 1 to 128 and what is added 0 to 128",
          "write header=OFFSET:BYTES:MASK:SCALE:ADD"
        )
      }
    }
    for (name, bits) in parts
    where bits.offset < 0 || !(1...8).contains(bits.byteCount)
      || bits.offset > PacketHeader.maximumBytes || bits.mask == 0
      || bits.mask & ~BitField.allBits(bits.byteCount) != 0
    {
      return (
        "\(name) has no bits, or more than its bytes", "give 1 to 8 bytes, and a mask within them"
      )
    }
    if let bad = fields.first(where: { !RuleWord.isName($0.name) }) {
      return ("`\(bad.name)` is no name", "names are 1 to 32 letters, digits, - and _")
    }
    if Set(fields.map(\.name)).count < fields.count {
      return ("two fields have one name", "choose another")
    }
    return nil
  }

  /// What is wrong with it beside the others.
  fileprivate func problem(among all: [ProtocolDefinition]) -> Problem? {
    if case .own(let below) = layer {
      guard all.contains(where: { $0.name == below }) else {
        return ("there is no protocol \(below) to stand above", "define it")
      }
      let isReached = all.contains {
        if case .own(below)? = $0.next?.numbers { true } else { false }
      }
      if !isReached {
        return ("no protocol says when it follows", "give \(below) a next=OFFSET:BYTES:\(below)")
      }
    }
    if case .own(let below)? = next?.numbers, !all.contains(where: { $0.layer == .own(below) }) {
      return ("no protocol stands above \(below)", "define one, or leave next= out")
    }
    return nil
  }
}

extension Rule {
  fileprivate var problem: Problem? {
    if !RuleWord.isName(name) {
      return ("is no name", "names are 1 to 32 letters, digits, - and _")
    }
    if actions.verdict == .to([]) { return ("to= names nobody", "name an instance") }
    if let problem = Self.problem(of: actions.clones) ?? Self.problem(of: actions.stages) {
      return problem
    }
    if case .to(let names) = actions.verdict, let problem = Self.problem(of: names) {
      return problem
    }
    if let limit = actions.limit,
      limit.rate == 0 || limit.rate > RuleActions.maximumRate || limit.burst == 0
    {
      return (
        "a limit is 1 to \(RuleActions.maximumRate) a second, and a burst 1 at least",
        "write limit=1000pps"
      )
    }
    return nil
  }

  private static func problem(of list: [String]) -> Problem? {
    if let bad = list.first(where: { !RuleWord.isName($0, allowsDot: true) }) {
      return ("`\(bad)` is no name", "names are 1 to 32 letters, digits, -, _ and .")
    }
    if list.count > 1 && Set(list).count < list.count {
      return ("a name stands there twice", "name each once")
    }
    return nil
  }
}

extension RuleMatch {
  fileprivate func problem(_ definitions: [String: ProtocolDefinition]) -> Problem? {
    if let etherType, etherType < Self.lowestEtherType {
      return ("\(etherType) is no EtherType", "they begin with 0x600")
    }
    for case .ids(let range)? in [vlan, innerVLAN] where range.upperBound > 0xfff {
      return ("a VLAN is 0 to 4095", "write another")
    }
    if let problem = Self.problem(of: sourceStation) ?? Self.problem(of: destinationStation)
      ?? Self.problem(of: source) ?? Self.problem(of: destination)
    {
      return problem
    }
    if transport != nil && header != nil {
      return ("there are two protocols", "write one; of two headers of one's own, ask for a field")
    }
    if vlan == TagPattern.none && (vlanPriority != nil || innerVLAN.map { $0 != .none } == true) {
      return ("no packet without a VLAN tag has a priority or a second tag", "leave vlan=none out")
    }
    if let vlanPriority, vlanPriority > 7 { return ("a VLAN priority is 0 to 7", "write another") }
    if let differentiatedServices, differentiatedServices > 63 {
      return ("a DSCP is 0 to 63", "write another")
    }
    if let source, let destination, source.address.isIPv6 != destination.address.isIPv6 {
      return ("one address is IPv4 and the other IPv6", "write a rule for each")
    }
    if let transport, ![6, 17, 132].contains(transport),
      sourcePorts != nil || destinationPorts != nil
    {
      return ("IP protocol \(transport) has no ports", "write protocol=tcp, udp or sctp")
    }
    if let transport, ![1, 58].contains(transport), messageType != nil || messageCode != nil {
      return ("IP protocol \(transport) has no ICMP type", "write protocol=icmp or icmpv6")
    }
    if (sourcePorts != nil || destinationPorts != nil) && (messageType != nil || messageCode != nil)
    {
      return ("no packet has ports and an ICMP type", "write a rule for each")
    }
    return header == nil && fields.isEmpty ? nil : headerProblem(definitions)
  }

  private static func problem(of station: StationPattern?) -> Problem? {
    guard let station, station.mask >> 48 != 0 || station.address & ~station.mask != 0 else {
      return nil
    }
    return ("an Ethernet address has bits outside its mask", "clear them")
  }

  private static func problem(of prefix: AddressPrefix?) -> Problem? {
    guard let prefix, prefix.length > prefix.maximumLength || prefix.begin != prefix.address
    else { return nil }
    return ("\(prefix) is no prefix", "write \(prefix.begin)")
  }

  private func headerProblem(_ definitions: [String: ProtocolDefinition]) -> Problem? {
    if let header, definitions[header] == nil {
      return (
        "there is no protocol \(header)", "define it with `protocol \(header)`, or write its number"
      )
    }
    for pattern in fields {
      guard let definition = definitions[pattern.header] else {
        return (
          "there is no protocol \(pattern.header)", "define it with `protocol \(pattern.header)`"
        )
      }
      guard let field = definition.fields.first(where: { $0.name == pattern.field }) else {
        return (
          "\(pattern.header) has no field \(pattern.field)",
          "define it with field=\(pattern.field):OFFSET:BYTES"
        )
      }
      let all = field.bits.maximum
      if pattern.value > all || (pattern.mask ?? 0) > all
        || pattern.value & ~(pattern.mask ?? all) != 0
      {
        return (
          "\(pattern) does not fit the field, or has bits outside its mask", "write 0 to \(all)"
        )
      }
    }
    let names = fields.map { [$0.header, $0.field] }
    if Set(names).count < names.count { return ("a field stands there twice", "write it once") }
    return nil
  }
}
