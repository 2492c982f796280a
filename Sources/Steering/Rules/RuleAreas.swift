/// The packets of each rule of a set, in the order in which rules are looked at: of each word of a key, a value of some bits, and
/// ranges of some others. Pairs of rules are compared here.
struct RuleAreas {
  private let count: Int
  /// Words of a key that any rule asks for, and their places among these.
  private let words: [Int]
  private let places: [Int]
  /// By rule and word: bits that are the same in all its packets, and their values. They tell most rules apart.
  private var masks: [UInt64] = []
  private var lows: [UInt64] = []
  private var kinds: [PacketKinds] = []
  private let tests: [[WordTest]]
  /// Those of the tests that more than one value passes.
  private let ranges: [[WordTest]]
  private let priorities: [UInt32]
  /// The same number for the same actions.
  private var actions: [Int] = []

  /// - Parameter set: one that has been checked.
  init(_ set: RuleSet) {
    let fields = FieldPlan(set)
    let rules = set.order.map { set.rules[$0] }
    count = rules.count
    priorities = rules.map(\.priority)
    let tests = rules.map { rule in
      var tests: [WordTest] = []
      rule.match.forEachCondition(fields) { $0.forEachTest { tests.append($0) } }
      return tests
    }
    let words = Set(tests.joined().map { Int($0.word) }).sorted()
    self.words = words
    places = (0..<fields.wordCount).map { word in words.firstIndex(of: word) ?? 0 }
    self.tests = tests
    ranges = tests.map { $0.filter { $0.span > 0 } }
    var numbers: [RuleActions: Int] = [:]
    for (rule, tests) in zip(rules, tests) {
      var masks = [UInt64](repeating: 0, count: fields.wordCount)
      var lows = masks
      for test in tests where test.span == 0 {
        masks[Int(test.word)] |= test.mask
        lows[Int(test.word)] |= test.low
      }
      kinds.append(
        PacketKinds(
          rule.match,
          PacketHeader.Contents(rawValue: UInt8(truncatingIfNeeded: lows[PacketKey.contents])),
          hasProtocols: !set.protocols.isEmpty))
      self.masks += words.map { masks[$0] }
      self.lows += words.map { lows[$0] }
      let number = numbers[rule.actions] ?? numbers.count
      numbers[rule.actions] = number
      actions.append(number)
    }
  }

  /// The first rule that is looked at before one and has all its packets.
  func shadow(of rank: Int) -> Int? { firstContaining(rank, in: 0..<rank) }

  /// The first of those before it that has some of its packets, the same priority and other actions.
  func conflict(of rank: Int) -> Int? {
    firstOther(rank, in: 0..<rank) { priorities[$0] == priorities[rank] }
  }

  /// A later rule that would do the same with all its packets.
  func replacement(of rank: Int) -> Int? {
    guard let later = firstContaining(rank, in: (rank + 1)..<count),
      firstOther(rank, in: (rank + 1)..<(later + 1), where: { _ in true }) == nil
    else { return nil }
    return later
  }

  /// The first of some rules that all packets of another are among.
  private func firstContaining(_ rank: Int, in others: Range<Int>) -> Int? {
    masks.withUnsafeBufferPointer { masks in
      lows.withUnsafeBufferPointer { lows in
        let its = rank &* words.count
        var place = others.lowerBound &* words.count
        for other in others {
          var difference: UInt64 = 0
          var word = 0
          while word < words.count && difference == 0 {
            // Bits that it asks for and the other's packets do not have in common, or have otherwise.
            let mask = masks[place &+ word]
            difference =
              mask & ~masks[its &+ word] | (lows[its &+ word] ^ lows[place &+ word]) & mask
            word &+= 1
          }
          if difference == 0 && rangesContain(other, rank) { return other }
          place &+= words.count
        }
        return nil
      }
    }
  }

  /// The first of some rules that has packets in common with another, and other actions.
  private func firstOther(
    _ rank: Int, in others: Range<Int>, where isMeant: (Int) -> Bool
  ) -> Int? {
    masks.withUnsafeBufferPointer { masks in
      lows.withUnsafeBufferPointer { lows in
        let its = rank &* words.count
        for other in others
        where actions[other] != actions[rank] && isMeant(other) && kinds[rank].meets(kinds[other]) {
          let place = other &* words.count
          var clash: UInt64 = 0
          var word = 0
          while word < words.count && clash == 0 {
            clash =
              (lows[its &+ word] ^ lows[place &+ word]) & masks[its &+ word] & masks[place &+ word]
            word &+= 1
          }
          if clash == 0 && rangesMeet(rank, other) { return other }
        }
        return nil
      }
    }
  }

  private func rangesMeet(_ one: Int, _ other: Int) -> Bool {
    Self.meet(ranges[one], tests[other]) && Self.meet(ranges[other], tests[one])
  }

  private static func meet(_ ranges: [WordTest], _ tests: [WordTest]) -> Bool {
    ranges.allSatisfy { range in
      tests.allSatisfy { test in
        guard range.word == test.word, range.mask == test.mask else { return true }
        return range.low <= test.low + test.span && test.low <= range.low + range.span
      }
    }
  }

  private func rangesContain(_ outer: Int, _ inner: Int) -> Bool {
    ranges[outer].allSatisfy { range in
      let place = inner * words.count + places[Int(range.word)]
      if masks[place] & range.mask == range.mask {
        return (lows[place] & range.mask) &- range.low <= range.span
      }
      return tests[inner].contains {
        $0.word == range.word && $0.mask == range.mask && $0.low >= range.low
          && $0.low + $0.span <= range.low + range.span
      }
    }
  }
}

/// Which kinds of packets a rule can match: what is known of protocols beyond the bits that the rule asks for. No ARP packet has
/// an IP protocol, none but TCP, UDP and SCTP has ports.
private struct PacketKinds {
  /// A bit for each EtherType that is known, and one for all others; from 8 on the same of IP protocols.
  private var bits: UInt16 = 0xffff

  private static let (ipv4, ipv6, arp, otherType): (UInt16, UInt16, UInt16, UInt16) = (1, 2, 4, 8)
  private static let (tcp, udp, sctp): (UInt16, UInt16, UInt16) = (1 << 8, 2 << 8, 4 << 8)
  private static let (icmp, icmpv6, otherProtocol): (UInt16, UInt16, UInt16) =
    (8 << 8, 16 << 8, 32 << 8)
  private static let networks: UInt16 = 0xff
  private static let transports: UInt16 = 0xff00

  /// - Parameters:
  ///   - contents: what the packet has to have.
  ///   - hasProtocols: there are protocols of one's own, which may be followed by TCP, say, without IP.
  init(_ match: RuleMatch, _ contents: PacketHeader.Contents, hasProtocols: Bool) {
    if let type = match.etherType { keep(Self.bit(etherType: type), of: Self.networks) }
    if contents.contains(.transport) {
      keep(Self.ipv4 | Self.ipv6 | (hasProtocols ? Self.otherType : 0), of: Self.networks)
    }
    if contents.contains(.ip) { keep(Self.ipv4 | Self.ipv6, of: Self.networks) }
    if contents.contains(.ipv4) { keep(Self.ipv4, of: Self.networks) }
    if contents.contains(.ipv6) { keep(Self.ipv6, of: Self.networks) }
    if let transport = match.transport {
      keep(Self.bit(transport: transport), of: Self.transports)
    }
    if contents.contains(.ports) { keep(Self.tcp | Self.udp | Self.sctp, of: Self.transports) }
    if contents.contains(.message) {
      keep(Self.icmp | Self.icmpv6, of: Self.transports)
      // Each has messages in one version of IP only.
      if bits & Self.ipv6 == 0 { keep(Self.icmp, of: Self.transports) }
      if bits & Self.networks == Self.ipv6 { keep(Self.icmpv6, of: Self.transports) }
      if bits & Self.icmp == 0 { keep(Self.ipv6, of: Self.networks) }
      if bits & Self.icmpv6 == 0 { keep(~Self.ipv6, of: Self.networks) }
    }
  }

  private mutating func keep(_ some: UInt16, of all: UInt16) { bits &= some | ~all }

  private static func bit(etherType: UInt16) -> UInt16 {
    switch etherType {
    case 0x0800: ipv4
    case 0x86dd: ipv6
    case 0x0806: arp
    default: otherType
    }
  }

  private static func bit(transport: UInt8) -> UInt16 {
    switch transport {
    case 6: tcp
    case 17: udp
    case 132: sctp
    case 1: icmp
    case 58: icmpv6
    default: otherProtocol
    }
  }

  /// Whether a packet can be of both kinds.
  func meets(_ other: PacketKinds) -> Bool {
    let both = bits & other.bits
    return both & Self.networks != 0 && both & Self.transports != 0
  }
}
