import Steering

extension RuleSet {
  /// The rule that decides, by looking at all of them; -1 for none.
  public func plainMatch(_ frame: [UInt8]) -> Int {
    let packet = PlainPacket(frame, protocols)
    var best = -1
    for (index, rule) in rules.enumerated() where packet.matches(rule.match) {
      if best < 0 || rule.priority < rules[best].priority { best = index }
    }
    return best
  }
}

extension PlainPacket {
  /// Whether each condition holds, by itself.
  public func matches(_ match: RuleMatch) -> Bool {
    if let wanted = match.etherType, etherType != wanted { return false }
    if let wanted = match.vlan, !Self.holds(wanted, tags.first) { return false }
    if let wanted = match.innerVLAN, !Self.holds(wanted, tags.count > 1 ? tags[1] : nil) {
      return false
    }
    if let wanted = match.vlanPriority {
      guard let tag = tags.first, tag / 8192 == wanted else { return false }
    }
    if let wanted = match.sourceStation, !Self.holds(wanted, sourceStation) { return false }
    if let wanted = match.destinationStation, !Self.holds(wanted, destinationStation) {
      return false
    }
    if let wanted = match.source, !holds(wanted, source) { return false }
    if let wanted = match.destination, !holds(wanted, destination) { return false }
    if let wanted = match.transport, transport != wanted { return false }
    if let wanted = match.header, headers[wanted] == nil { return false }
    if let wanted = match.differentiatedServices, services != wanted { return false }
    if let wanted = match.fragment {
      guard let fragment else { return false }
      if wanted == .any ? fragment == .no : fragment != wanted { return false }
    }
    if let wanted = match.sourcePorts, ports.map({ wanted.contains($0.source) }) != true {
      return false
    }
    if let wanted = match.destinationPorts, ports.map({ wanted.contains($0.destination) }) != true {
      return false
    }
    if let wanted = match.messageType, message?.type != wanted { return false }
    if let wanted = match.messageCode, message?.code != wanted { return false }
    return match.fields.allSatisfy { pattern in
      guard let value = headers[pattern.header]?[pattern.field] else { return false }
      return value & (pattern.mask ?? .max) == pattern.value
    }
  }

  private static func holds(_ pattern: TagPattern, _ tag: UInt16?) -> Bool {
    switch pattern {
    case .none: tag == nil
    case .any: tag != nil
    case .ids(let range): tag.map { range.contains($0 % 4096) } ?? false
    }
  }

  private static func holds(_ pattern: StationPattern, _ station: UInt64) -> Bool {
    (0..<48).allSatisfy {
      pattern.mask >> $0 % 2 == 0 || pattern.address >> $0 % 2 == station >> $0 % 2
    }
  }

  private func holds(_ prefix: AddressPrefix, _ address: UInt128) -> Bool {
    guard isIPv6 == prefix.address.isIPv6 else { return false }
    let wanted = UInt128(prefix.address.high) << 64 | UInt128(prefix.address.low)
    let width = prefix.address.isIPv6 ? 128 : 32
    return wanted >> (width - Int(prefix.length)) == address >> (width - Int(prefix.length))
  }
}
