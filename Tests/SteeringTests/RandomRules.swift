import Steering

/// Rules and frames from a small world, so that they meet.
enum RandomRules {
  static let protocols = """
    protocol shim above=ethernet type=0x88b5 header=6 next=4:2:ethertype field=label:0:4:0xfffff000 field=low:3:1:0x0f
    protocol vx above=udp type=4789 header=8 next=0:1:vx field=vni:4:4:0xffffff00 field=kind:0:1
    protocol inner above=vx type=7 header=4 next=3:1:ethertype field=word:0:4
    protocol ext above=ip type=253 header=1:1:0xf0:4:4 next=0:1:ip-protocol field=first:0:1 field=late:8:2
    protocol chain above=ethernet type=0x88b6 header=2 next=0:2:ethertype field=n:1:1
    protocol line above=tcp type=80 header=3 field=verb:0:3
    protocol six above=ipv6 type=254 header=2 next=0:1:ip-protocol field=b:1:1

    """

  static func set(_ count: Int, withProtocols: Bool) throws -> RuleSet {
    var set = try RuleSet(withProtocols ? protocols : "")
    for number in 0..<count {
      var rule = Rule(
        name: "r\(number)", priority: .random(in: 0..<3),
        match: match(withProtocols), actions: actions())
      if Int.random(in: 0..<8) == 0, let other = set.rules.randomElement() {
        rule.match = other.match
      }
      set.rules.append(rule)
      if (try? set.check()) == nil { set.rules.removeLast() }
    }
    return set
  }

  private static func actions() -> RuleActions {
    var actions = RuleActions([.deliver, .drop, .to(["a"]), .to(["a", "b.c"])].randomElement()!)
    if one(in: 6) { actions.clones = ["m"] }
    if one(in: 6) { actions.mark = .random(in: 0...9) }
    if one(in: 6) { actions.limit = RateLimit(1000, one(in: 2) ? .packets : .bits) }
    if one(in: 12) { actions.limit = RateLimit(1, .packets, burst: 7) }
    if one(in: 9) { actions.stages = ["fw", "nat"] }
    return actions
  }

  static func one(in count: Int) -> Bool { Int.random(in: 0..<count) == 0 }

  private static func range(_ values: [UInt16]) -> ClosedRange<UInt16> {
    let first = values.randomElement()!
    return one(in: 2) ? first...first : first...(first &+ .random(in: 0...300)).clamped(from: first)
  }

  static let ports: [UInt16] = [0, 53, 80, 4789, 5000, 5100, 65535]
  static let addresses: [NetworkAddress] = [
    "10.0.0.1", "10.0.0.2", "10.0.1.1", "192.168.7.9", "0.0.0.0", "255.255.255.255", "fd00::1",
    "fd00::2", "fd00:0:0:1::1", "::", "2001:db8::5",
  ].map { NetworkAddress($0)! }
  static let stations: [UInt64] = [Frames.station, Frames.peer, Frames.broadcast, 0x0200_0000_0002]
  static let transports: [UInt8] = [0, 1, 6, 17, 47, 58, 132, 253, 254]

  private static func prefix() -> AddressPrefix {
    let address = addresses.randomElement()!
    let bits: UInt8 = address.isIPv6 ? 128 : 32
    let prefix = AddressPrefix(address, length: one(in: 3) ? bits : .random(in: 0...bits))
    var begin = address
    let cut = Int(bits - prefix.length)
    let kept: (UInt64, Int) -> UInt64 = { $1 <= 0 ? $0 : $1 >= 64 ? 0 : ($0 >> $1) << $1 }
    begin.low = kept(address.low, cut)
    begin.high = kept(address.high, cut - 64)
    return AddressPrefix(begin, length: prefix.length)
  }

  private static func tag() -> TagPattern {
    switch Int.random(in: 0..<4) {
    case 0: .none
    case 1: .any
    case 2: .ids(5...5)
    default: .ids(3...UInt16.random(in: 3...4095))
    }
  }

  private static func station() -> StationPattern {
    let address = stations.randomElement()!
    let mask: UInt64 = one(in: 2) ? 0xffff_ffff_ffff : .random(in: 0...0xffff_ffff_ffff)
    return StationPattern(address & mask, mask: mask)
  }

  private static func match(_ withProtocols: Bool) -> RuleMatch {
    var match = RuleMatch()
    let rarity = Int.random(in: 3...12)
    if one(in: rarity) {
      match.etherType = [0x0800, 0x86dd, 0x0806, 0x88b5, 0x88b7].randomElement()
    }
    if one(in: rarity) { match.vlan = tag() }
    if one(in: rarity) { match.innerVLAN = tag() }
    if one(in: 3 * rarity) { match.vlanPriority = .random(in: 0...7) }
    if one(in: rarity) { match.sourceStation = station() }
    if one(in: rarity) { match.destinationStation = station() }
    if one(in: rarity) { match.source = prefix() }
    if one(in: rarity) { match.destination = prefix() }
    if one(in: rarity) { match.transport = transports.randomElement() }
    if one(in: rarity) { match.differentiatedServices = [0, 46].randomElement() }
    if one(in: rarity) { match.fragment = FragmentPattern.allCases.randomElement() }
    if one(in: rarity) { match.sourcePorts = range(ports) }
    if one(in: rarity) { match.destinationPorts = range(ports) }
    if one(in: 2 * rarity) { match.messageType = [0, 3, 8, 128, 135].randomElement() }
    if one(in: 3 * rarity) { match.messageCode = [0, 1].randomElement() }
    guard withProtocols else { return match }
    let names = ["shim", "vx", "inner", "ext", "chain", "line", "six"]
    if match.transport == nil && one(in: rarity) { match.header = names.randomElement() }
    for (header, field, value) in [
      ("shim", "label", UInt64(3)), ("vx", "vni", 42), ("vx", "kind", 7), ("inner", "word", 2048),
      ("ext", "late", 0), ("chain", "n", 0xb6), ("line", "verb", 0x474554), ("six", "b", 1),
    ] where one(in: 2 * rarity) {
      let mask: UInt64? = one(in: 3) ? value | 1 : nil
      match.fields.append(FieldPattern(header, field, value, mask: mask))
    }
    return match
  }
}

extension UInt16 {
  fileprivate func clamped(from first: UInt16) -> UInt16 { self < first ? .max : self }
}

/// Frames of every kind that the rules know, whole and broken.
enum RandomFrames {
  static func frame() -> [UInt8] {
    var type: UInt16
    var rest: [UInt8]
    (type, rest) = network()
    while RandomRules.one(in: 6) {
      let shim = RandomRules.one(in: 2)
      rest = (shim ? [0, 0, 0x30, 5] : []) + Frames.bytes(UInt64(type), 2) + rest
      type = shim ? 0x88b5 : 0x88b6
    }
    while RandomRules.one(in: 3) {
      rest =
        Frames.bytes(UInt64([5, 0x2005, 3, 4095].randomElement()!), 2)
        + Frames.bytes(UInt64(type), 2) + rest
      type = [0x8100, 0x88a8, 0x9100].randomElement()!
    }
    var frame = Frames.ethernet(
      to: RandomRules.stations.randomElement()!, from: RandomRules.stations.randomElement()!,
      type: type, rest)
    if RandomRules.one(in: 4) {
      for _ in 0..<Int.random(in: 1...4) {
        frame[.random(in: frame.indices)] = RandomRules.one(in: 2) ? .random(in: 0...255) : 0
      }
    }
    if RandomRules.one(in: 5) { frame.removeLast(.random(in: 0...frame.count)) }
    if RandomRules.one(in: 5) { frame += [UInt8](repeating: 7, count: .random(in: 0...100)) }
    return frame
  }

  private static func network() -> (UInt16, [UInt8]) {
    let source = RandomRules.addresses.randomElement()!
    let others = RandomRules.addresses.filter { $0.isIPv6 == source.isIPv6 }
    let destination = others.randomElement()!
    var (number, rest) = transport(source.isIPv6)
    if RandomRules.one(in: 6) {
      return (0x0806, Frames.arp(.random(in: 1...3), from: 0x0a00_0001, to: 0x0a00_0002))
    }
    if RandomRules.one(in: 9) { return (0x88b7, rest) }
    let fragment: UInt16 = RandomRules.one(in: 4) ? [0x2000, 0x2001, 1, 0].randomElement()! : 0
    if !source.isIPv6 {
      var packet = Frames.ipv4(
        UInt32(truncatingIfNeeded: source.low), UInt32(truncatingIfNeeded: destination.low), number,
        fragment: fragment, options: RandomRules.one(in: 5) ? 2 : 0, rest)
      packet[1] = [0, 0xb8, 1].randomElement()!
      return (0x0800, packet)
    }
    if RandomRules.one(in: 4) {
      rest =
        [number, 0] + Frames.bytes(UInt64([0, 1, 8, 9].randomElement()!), 2) + [0, 0, 0, 1] + rest
      number = 44
    }
    while RandomRules.one(in: 4) {
      let words = RandomRules.one(in: 5) ? 1 : 0
      rest = [number, UInt8(words)] + [UInt8](repeating: 0, count: 6 + 8 * words) + rest
      number = [0, 43, 60].randomElement()!
    }
    var packet = Frames.ipv6(
      (source.high, source.low), (destination.high, destination.low), number, rest)
    packet[0] = [0x60, 0x6b].randomElement()!
    packet[1] = [0, 0x80].randomElement()!
    return (0x86dd, packet)
  }

  private static func transport(_ isIPv6: Bool) -> (UInt8, [UInt8]) {
    var number = RandomRules.transports.randomElement()!
    let ports = (RandomRules.ports.randomElement()!, RandomRules.ports.randomElement()!)
    var rest: [UInt8] =
      switch number {
      case 6: Frames.tcp(ports.0, ports.1) + [0x47, 0x45, 0x54, 0x20]
      case 17: Frames.udp(ports.0, ports.1) + [7, 0, 0, 0, 0, 0, 42, 0, 0, 0, 8, 0] + [0, 0, 8, 0]
      case 132:
        Frames.bytes(UInt64(ports.0), 2) + Frames.bytes(UInt64(ports.1), 2)
          + [UInt8](repeating: 0, count: 8)
      default:
        Frames.icmp([0, 3, 8, 128, 135, 136, 1].randomElement()!, [UInt8](repeating: 0, count: 24))
      }
    while RandomRules.one(in: 5) {
      let isLong = RandomRules.one(in: 2)
      let six = isIPv6 && RandomRules.one(in: 2)
      rest =
        (six
          ? [number, 1]
          : [number, isLong ? 0x20 : 0, 9, 9] + [UInt8](repeating: 0, count: isLong ? 8 : 0)) + rest
      number = six ? 254 : 253
    }
    return (number, rest)
  }
}
