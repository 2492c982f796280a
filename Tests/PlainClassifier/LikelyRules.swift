import Steering

extension PlainPacket {
  /// What people write rules of, together.
  private static let shapes: [Set<Int>] = [
    [destination], [source], [destination, protocols, destinationPort], [source, destination],
    [source, destination, protocols, sourcePort, destinationPort], [source, destinationPort],
    [protocols, destinationPort, destination], [vlan, destination], [vlan, source, message],
    [station, destination], [station, source, etherType], [services, source], [fragment, source],
    [message, destination], [headers, destination], [headers, source], [innerVLAN, source],
    [destination, sourcePort], [source, message],
  ]
  private static let (source, destination, protocols, sourcePort, destinationPort) = (0, 1, 2, 3, 4)
  private static let (vlan, innerVLAN, station, etherType, services) = (5, 6, 7, 8, 9)
  private static let (fragment, message, headers) = (10, 11, 12)

  /// Conditions that this packet fulfils: some of what it has, exactly or more widely.
  public func likelyMatch(using random: inout some RandomNumberGenerator) -> RuleMatch {
    var match = RuleMatch()
    func one(in count: Int) -> Bool { Int.random(in: 0..<count, using: &random) == 0 }
    func around(_ port: UInt16) -> ClosedRange<UInt16> {
      if !one(in: 8) { return port...port }
      return port - min(port, .random(in: 0...500, using: &random))...port
        + min(.max - port, .random(in: 0...500, using: &random))
    }
    let shape = Self.shapes.randomElement(using: &random) ?? []
    if shape.contains(Self.etherType) && etherType >= 0x600 { match.etherType = etherType }
    if shape.contains(Self.vlan) {
      match.vlan = tags.first.map { .ids($0 % 4096...$0 % 4096) } ?? TagPattern.none
    }
    if shape.contains(Self.innerVLAN) && tags.count > 1 {
      match.innerVLAN = .ids(tags[1] % 4096...tags[1] % 4096)
      match.vlanPriority = UInt8(tags[0] / 8192)
    }
    if shape.contains(Self.station) {
      match.destinationStation = StationPattern(destinationStation)
      let mask: UInt64 = one(in: 2) ? 0xffff_ff00_0000 : 0xffff_ffff_ffff
      match.sourceStation = StationPattern(sourceStation & mask, mask: mask)
    }
    if let isIPv6 {
      if shape.contains(Self.source) { match.source = Self.prefix(source, isIPv6, &random) }
      if shape.contains(Self.destination) {
        match.destination = Self.prefix(destination, isIPv6, &random)
      }
      if shape.contains(Self.services) { match.differentiatedServices = services }
      if shape.contains(Self.fragment) { match.fragment = fragment == .no ? .no : .any }
    }
    if shape.contains(Self.protocols), let transport { match.transport = transport }
    if let ports {
      if shape.contains(Self.sourcePort) { match.sourcePorts = around(ports.source) }
      if shape.contains(Self.destinationPort) { match.destinationPorts = around(ports.destination) }
    }
    if let message, shape.contains(Self.message) {
      match.messageType = message.type
      if one(in: 2) { match.messageCode = message.code }
    }
    for (name, values) in headers.sorted(by: { $0.key < $1.key })
    where shape.contains(Self.headers) {
      if match.transport == nil { match.header = name }
      for (field, value) in values.sorted(by: { $0.key < $1.key }) where one(in: 2) {
        match.fields.append(FieldPattern(name, field, value))
      }
    }
    return match
  }

  private static func prefix(
    _ address: UInt128, _ isIPv6: Bool, _ random: inout some RandomNumberGenerator
  ) -> AddressPrefix {
    let width = isIPv6 ? 128 : 32
    let length =
      Bool.random(using: &random)
      ? width
      : [16, 24, 64].filter { $0 < width }.randomElement(using: &random)!
    let begin = (address >> (width - length)) << (width - length)
    let network =
      isIPv6
      ? NetworkAddress(
        ipv6High: UInt64(truncatingIfNeeded: begin >> 64), low: UInt64(truncatingIfNeeded: begin))
      : NetworkAddress(ipv4: UInt32(truncatingIfNeeded: begin))
    return AddressPrefix(network, length: UInt8(length))
  }
}
