import PlainClassifier
import Steering
import Testing

/// Frames that are cut off, too long, contradict themselves or go on and on: no rule is hit that the plain classifier
/// would not hit, and nothing is read behind the end.
@Suite struct HostilePacketTests {
  private static let rules = """
    \(RandomRules.protocols)
    rule ports source-port=9 destination-port=80
    rule six destination=2001:db8::/32 fragment=no
    rule echo icmp-type=8
    rule label shim.label=3
    rule vni vx.vni=42
    rule inner protocol=inner
    rule ext protocol=ext
    rule late ext.late=0
    rule chain chain.n=0xb6
    rule two inner-vlan=5
    rule tagged vlan=any
    rule four source=10.0.0.0/8
    rule type ethertype=ipv4
    rule arp ethertype=arp
    """

  private static func four(_ transport: UInt8, _ rest: [UInt8]) -> [UInt8] {
    Frames.ethernet(
      type: 0x0800, Frames.ipv4(0x0a00_0001, 0x0a00_0002, transport, options: 1, rest))
  }

  private static func six(_ next: UInt8, _ rest: [UInt8]) -> [UInt8] {
    Frames.ethernet(
      type: 0x86dd, Frames.ipv6((0xfd00 << 48, 1), (0x2001_0db8 << 32, 5), next, rest))
  }

  private static func hop(_ next: UInt8) -> [UInt8] { [next, 0, 1, 4, 0, 0, 0, 0] }

  /// One of each kind of header.
  private static let whole: [[UInt8]] = [
    four(6, Frames.tcp(9, 80)), four(17, Frames.udp(9, 80)), four(1, Frames.icmp(8)),
    four(132, [0, 9, 0, 80] + [UInt8](repeating: 0, count: 8)),
    four(253, [6, 0x20, 0, 0] + [UInt8](repeating: 0, count: 8) + Frames.tcp(9, 80)),
    four(17, Frames.udp(1, 4789) + [7, 0, 0, 0, 0, 0, 42, 0, 0, 0, 8, 0]),
    six(60, hop(0) + hop(6) + Frames.tcp(9, 80)),
    six(44, [17, 0, 0, 1, 0, 0, 0, 1] + Frames.udp(9, 80)),
    six(58, Frames.icmp(135, [UInt8](repeating: 0, count: 20))),
    Frames.ethernet(type: 0x0806, Frames.arp(1, from: 1, to: 2)),
    Frames.ethernet(
      type: 0x88a8, [0, 7, 0x81, 0, 0, 5, 8, 0] + Frames.ipv4(1, 2, 6, Frames.tcp(9, 80))),
    Frames.ethernet(type: 0x88b5, [0, 0, 0x30, 5, 8, 0] + Frames.ipv4(1, 2, 6, Frames.tcp(9, 80))),
  ]

  private func check(_ frames: [[UInt8]]) throws -> Set<Int> {
    let set = try RuleSet(Self.rules)
    let classifier = try Classifier(set)
    var found: Set<Int> = []
    for frame in frames {
      let rule = match(frame, classifier.view)
      #expect(rule == set.plainMatch(frame), "\(frame)")
      found.insert(rule)
    }
    return found
  }

  @Test func everyHeaderCutOffAnywhere() throws {
    let frames = Self.whole.flatMap { frame in (0...frame.count).map { Array(frame[..<$0]) } }
    #expect(try check(frames).count > 8)
  }

  /// Each byte of each header as none, all ones, one more and one less: lengths, versions, types, offsets.
  @Test func everyByteOversized() throws {
    let frames = Self.whole.flatMap { frame in
      frame.indices.flatMap { place in
        [0, 0xff, frame[place] &+ 1, frame[place] &- 1].map { (value: UInt8) in
          var bad = frame
          bad[place] = value
          return bad
        }
      }
    }
    #expect(try check(frames).count > 8)
  }

  @Test func nestedAHundredDeep() throws {
    let deep = { (one: [UInt8], last: [UInt8]) in (0..<100).flatMap { _ in one } + last }
    let packet = Frames.ipv4(0x0a00_0001, 2, 6, Frames.tcp(9, 80))
    var frames: [[UInt8]] = []
    for count in 0...100 {
      let tags = (0..<count).flatMap { _ in [0, 5, 0x81, 0] as [UInt8] }
      frames.append(Frames.ethernet(type: 0x8100, tags + [0, 5, 8, 0] + packet))
      let chains = (0..<count).flatMap { _ in [0x88, 0xb6] as [UInt8] }
      frames.append(Frames.ethernet(type: 0x88b6, chains + [8, 0] + packet))
      let hops = (0..<count).flatMap { _ in Self.hop(60) }
      frames.append(Self.six(60, hops + Self.hop(6) + Frames.tcp(9, 80)))
    }
    frames.append(Self.four(253, deep([253, 0, 0, 0], Frames.tcp(9, 80))))
    frames.append(Self.four(4, deep(Frames.ipv4(1, 2, 4, []), packet)))
    frames.append(Self.six(44, deep([44, 0, 0, 1, 0, 0, 0, 1], Frames.udp(9, 80))))
    frames.append(Self.four(17, Frames.udp(1, 4789) + deep([7, 0, 0, 0, 0, 0, 42, 0], [])))
    #expect(try check(frames).count > 3)
    // Tags are counted as far as the frame is looked at.
    let tagged = frames[2 * 3].withUnsafeBytes {
      PacketHeader(frame: $0.baseAddress!, byteCount: $0.count)
    }
    #expect(tagged.tagCount == 3 && tagged.kind == .tagged)
  }

  /// Many prefixes of every length, ranges that overlap, and the same rule again and again: looked up with a bound, or
  /// refused with one.
  @Test func setsThatAreMeantToBeSlow() throws {
    var set = RuleSet()
    for number in 0..<1500 {
      var match = RuleMatch()
      let length = UInt8(number % 33)
      let ones: UInt32 = length == 0 ? 0 : ~0 << UInt32(32 - length)
      let address = UInt32(truncatingIfNeeded: number &* 0x9e37_79b1) & ones
      match.source = AddressPrefix(NetworkAddress(ipv4: address), length: length)
      if number % 2 == 0 {
        let other = UInt8(number / 33 % 33)
        let kept: UInt32 = other == 0 ? 0 : ~0 << UInt32(32 - other)
        match.destination = AddressPrefix(
          NetworkAddress(ipv4: address &* 7 & kept), length: other)
      }
      if number % 3 == 0 { match.destinationPorts = UInt16(number)...UInt16(65535 - number) }
      set.rules.append(Rule(name: "r\(number)", match: match))
    }
    let classifier = try Classifier(set)
    #expect(classifier.view.steps <= Classifier.maximumSteps)
    for _ in 0..<50 {
      let frame = Frames.ethernet(
        type: 0x0800,
        Frames.ipv4(
          .random(in: 0...(.max)), .random(in: 0...(.max)), 6,
          Frames.tcp(9, .random(in: 0...(.max)))))
      #expect(match(frame, classifier.view) == set.plainMatch(frame))
    }
    // Nothing but ranges, of which each holds the next: every one of them would be looked at.
    for index in set.rules.indices {
      set.rules[index].match = RuleMatch()
      set.rules[index].match.destinationPorts = UInt16(index)...UInt16(65535 - index)
    }
    do {
      _ = try Classifier(set)
      Issue.record("1500 rules that all match are taken")
    } catch {
      #expect(error.description.contains("1500 rules"), "\(error)")
    }
    for index in set.rules.indices { set.rules[index].match.destinationPorts = 7...9 }
    #expect(try Classifier(set).view.steps == 1)
  }

  /// Both directions of a flow, and its fragments, have one hash; other flows mostly others.
  @Test func flowsHaveOneHashBothWays() {
    func hash(_ frame: [UInt8]) -> UInt32 {
      frame.withUnsafeBytes { PacketHeader(frame: $0.baseAddress!, byteCount: $0.count).flowHash }
    }
    var hashes: Set<UInt32> = []
    for flow in 0..<500 {
      let (one, other) = (UInt32(0x0a00_0000 + flow), UInt32(0xc0a8_0001))
      let there = hash(Frames.ethernet(type: 0x0800, Frames.ipv4(one, other, 6, Frames.tcp(9, 80))))
      let back = hash(Frames.ethernet(type: 0x0800, Frames.ipv4(other, one, 6, Frames.tcp(80, 9))))
      #expect(there == back)
      hashes.insert(there)
      hashes.insert(
        hash(
          Frames.ethernet(
            type: 0x0800, Frames.ipv4(one, other, 6, Frames.tcp(UInt16(flow) + 10, 80)))))
    }
    #expect(hashes.count > 990)
    let first = Frames.ethernet(
      type: 0x0800, Frames.ipv4(1, 2, 17, fragment: 0x2000, Frames.udp(1, 2)))
    let later = Frames.ethernet(type: 0x0800, Frames.ipv4(1, 2, 17, fragment: 3, [9, 9]))
    #expect(hash(first) == hash(later))
    // The members of a set get about as many each.
    var loads = [0, 0, 0, 0]
    for hash in hashes { loads[Int((UInt64(hash) * 4) >> 32)] += 1 }
    #expect(loads.allSatisfy { $0 > 180 && $0 < 320 }, "\(loads)")
  }
}
