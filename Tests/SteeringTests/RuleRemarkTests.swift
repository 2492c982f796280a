import PlainClassifier
import Steering
import Testing

@Suite struct RuleRemarkTests {
  private func remarks(_ text: String) throws -> [String] {
    try RuleSet(text).remarks().map { "\($0.rule) \($0.kind) \($0.other)" }
  }

  @Test func whatNeverDecidesIsNamedWithWhatStandsBeforeIt() throws {
    #expect(
      try remarks(
        """
        rule wide source=10.0.0.0/8 drop
        rule narrow source=10.1.0.0/16 protocol=tcp destination-port=80 to=a
        rule other source=11.0.0.0/8 to=a
        """) == ["narrow shadowed wide"])
    // Priority, not place, says what comes first.
    #expect(
      try remarks(
        """
        rule narrow priority=5 destination-port=80 to=a
        rule wide destination-port=0-1000 drop
        """) == ["narrow shadowed wide"])
    #expect(
      try remarks(
        """
        rule tagged vlan=any drop
        rule two inner-vlan=5 to=a
        """) == ["two shadowed tagged"])
  }

  @Test func conflictsAreOfEqualPriorityAndOtherActions() throws {
    let crossing = """
      rule web destination-port=80 to=a
      rule bad source=10.0.0.0/8 drop
      """
    #expect(try remarks(crossing) == ["bad conflict web"])
    #expect(try remarks(crossing.replacing("rule bad", with: "rule bad priority=1")) == [])
    #expect(try remarks(crossing.replacing("drop", with: "to=a")) == [])
    // Nothing is both.
    #expect(
      try remarks("rule four source=0.0.0.0/0 drop\nrule six destination=::/0 to=a") == [])
    #expect(
      try remarks("rule ping icmp-type=8 drop\nrule web destination-port=80 to=a") == [])
    #expect(
      try remarks("rule low destination-port=1-9 drop\nrule high destination-port=10-20 to=a") == []
    )
  }

  /// Nothing is of two protocols.
  @Test(arguments: [
    ("ethertype=arp", "protocol=tcp"), ("ethertype=arp", "destination-port=80"),
    ("ethertype=arp", "source=10.0.0.0/8"), ("ethertype=arp", "fragment=no"),
    ("ethertype=ipv6", "source=10.0.0.0/8"), ("ethertype=ipv4", "destination=fd00::/8"),
    ("ethertype=0x88b5", "protocol=udp"), ("ethertype=0x88b5", "dscp=46"),
    ("protocol=icmp", "destination-port=80"), ("protocol=47", "source-port=1-1000"),
    ("protocol=tcp", "icmp-type=8"), ("protocol=58", "icmp-type=8 source=10.0.0.0/8"),
    ("protocol=icmp", "icmp-type=128 source=fd00::/8"),
    ("protocol=icmp icmp-type=8", "destination=fd00::/8"),
  ])
  func rulesOfOtherProtocolsHaveNothingInCommon(one: String, other: String) throws {
    #expect(try remarks("rule one \(one) drop\nrule other \(other) to=a") == [])
    #expect(try remarks("rule other \(other) to=a\nrule one \(one) drop") == [])
    // They do have something in common with what says less.
    #expect(try remarks("rule one \(one) drop\nrule any priority=1 to=a") == [])
    #expect(try remarks("rule any to=a\nrule one \(one) drop") == ["one shadowed any"])
  }

  @Test func whatComesWithoutIPByAProtocolOfOnesOwnCounts() throws {
    let raw = "protocol raw above=ethernet type=0x88b5 header=1 next=0:1:ip-protocol\n"
    let pair = "rule one ethertype=0x88b5 drop\nrule other protocol=udp to=a"
    #expect(try remarks(raw + pair) == ["other conflict one"])
    #expect(try remarks(raw + pair.replacing("0x88b5", with: "arp")) == [])
  }

  /// Of two rules that a packet meets, one is named.
  @Test func nothingInCommonIsTrue() throws {
    var seen = 0
    for round in 0..<10 {
      let set = try RandomRules.set(25, withProtocols: round % 2 == 1)
      for _ in 0..<40 {
        let packet = PlainPacket(RandomFrames.frame(), set.protocols)
        let met = set.rules.filter { packet.matches($0.match) }
        guard met.count > 1 else { continue }
        var pair = set
        pair.rules = Array(met.prefix(2))
        for (place, action) in [RuleActions(.drop), RuleActions(.to(["a"]))].enumerated() {
          pair.rules[place].priority = 0
          pair.rules[place].actions = action
        }
        seen += 1
        let kinds = try pair.remarks().map(\.kind)
        #expect(kinds == [.conflict] || kinds == [.shadowed], "\(pair)")
      }
    }
    #expect(seen > 20)
  }

  @Test func whatChangesNothingIsNamed() throws {
    #expect(
      try remarks(
        """
        rule one source=10.0.0.1 drop
        rule all source=10.0.0.0/24 drop
        """) == ["one redundant all"])
    #expect(
      try remarks(
        """
        rule one source=10.0.0.1 drop
        rule between priority=1 source=10.0.0.0/28 to=a
        rule all priority=2 source=10.0.0.0/24 drop
        """) == [])
  }

  /// A shadowed or redundant rule can go, and nothing changes for any packet.
  @Test func remarksAreTrue() throws {
    var seen = 0
    for round in 0..<10 {
      let set = try RandomRules.set(25, withProtocols: round % 2 == 1)
      for remark in try set.remarks() where remark.kind != .conflict {
        seen += 1
        var without = set
        without.rules.removeAll { $0.name == remark.rule }
        for _ in 0..<20 {
          let frame = RandomFrames.frame()
          let (before, after) = (set.plainMatch(frame), without.plainMatch(frame))
          #expect(
            (before < 0 ? nil : set.rules[before].actions)
              == (after < 0 ? nil : without.rules[after].actions), "\(remark)")
        }
      }
    }
    #expect(seen > 3)
  }

  @Test func anExplanationSaysWhatDidNotHold() throws {
    let set = try RuleSet(
      """
      protocol vx above=udp type=4789 header=8 field=vni:4:4:0xffffff00
      rule v vlan=5 drop
      rule six source=fd00::/8 drop
      rule ssh priority=1 destination=10.0.0.0/8 destination-port=22 drop
      rule ping icmp-type=8 drop
      rule vni vx.vni=42 drop
      rule web priority=2 destination-port=80-90 to=a
      rule rest priority=3 drop
      """)
    let frame = Frames.ethernet(
      type: 0x0800, Frames.ipv4(1, 0x0a00_0001, 6, Frames.tcp(1000, 85)))
    let explanation = try set.explain(frame)
    #expect(explanation.rule == "web")
    #expect(
      explanation.misses.map { "\($0.rule)|\($0.condition)|\($0.packet)" } == [
        "v|vlan=5|no VLAN tag", "six|source=fd00::/8|no IPv6", "ping|icmp-type=8|no ICMP message",
        "vni|vx.vni=42|no vx.vni", "ssh|destination-port=22|85",
      ])
    #expect(try RuleSet("rule v vlan=5").explain([]).rule == nil)
    for round in 0..<6 {
      let set = try RandomRules.set(20, withProtocols: round % 2 == 1)
      for _ in 0..<20 {
        let frame = RandomFrames.frame()
        let expected = set.plainMatch(frame)
        #expect(try set.explain(frame).rule == (expected < 0 ? nil : set.rules[expected].name))
      }
    }
  }
}
