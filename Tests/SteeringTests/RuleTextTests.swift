import Steering
import Testing

@Suite struct RuleTextTests {
  @Test func whatIsWrittenIsReadAgain() throws {
    for round in 0..<30 {
      let set = try RandomRules.set(round, withProtocols: round % 2 == 1)
      #expect(try RuleSet(set.description) == set)
    }
  }

  @Test func everyWordMeansWhatItSays() throws {
    let set = try RuleSet(
      """
      # a comment, and an empty line

      rule web priority=10 ethertype=ipv4 vlan=5-7 inner-vlan=any vlan-priority=3 \
      source-mac=02:00:00:00:00:01 destination-mac=52:54:00:00:00:00/24 source=10.0.0.0/8 \
      destination=192.168.1.1 protocol=tcp dscp=46 fragment=no source-port=1024-65535 \
      destination-port=443 to=front-1,front-2 clone=ids mark=0x10 burst=5 limit=10mbit/s stage=fw,nat
      rule six vlan=none source-mac=02:00:00:00:00:00/fe:00:00:00:00:00 destination=fd00::/8 \
      protocol=icmpv6 icmp-type=128 icmp-code=0 limit=1000pps drop # at the end
      protocol vx above=udp type=4789 header=8 field=vni:4:4:0xffffff00
      rule own protocol=vx vx.vni=42/0xff
      """)
    var web = RuleMatch()
    web.etherType = 0x0800
    web.vlan = .ids(5...7)
    web.innerVLAN = .any
    web.vlanPriority = 3
    web.sourceStation = StationPattern(0x0200_0000_0001)
    web.destinationStation = StationPattern(0x5254_0000_0000, mask: 0xffff_ff00_0000)
    web.source = AddressPrefix(NetworkAddress(ipv4: 0x0a00_0000), length: 8)
    web.destination = AddressPrefix(NetworkAddress(ipv4: 0xc0a8_0101), length: 32)
    web.transport = 6
    web.differentiatedServices = 46
    web.fragment = .no
    web.sourcePorts = 1024...65535
    web.destinationPorts = 443...443
    var actions = RuleActions(.to(["front-1", "front-2"]))
    actions.clones = ["ids"]
    actions.mark = 16
    actions.limit = RateLimit(10_000_000, .bits, burst: 5)
    actions.stages = ["fw", "nat"]
    #expect(set.rules[0] == Rule(name: "web", priority: 10, match: web, actions: actions))
    #expect(set.rules[1].match.sourceStation?.mask == 0xfe00_0000_0000)
    #expect(set.rules[1].actions.verdict == .drop)
    #expect(set.rules[2].match.header == "vx")
    #expect(set.rules[2].match.fields == [FieldPattern("vx", "vni", 42, mask: 0xff)])
    #expect(
      set.protocols == [
        ProtocolDefinition(
          "vx", above: .udp, type: 4789, headerLength: .fixed(8),
          fields: [.init("vni", .init(offset: 4, byteCount: 4, mask: 0xffff_ff00))])
      ])
  }

  /// Each is refused at its line, with the word.
  @Test(arguments: [
    ("rule", "no name"), ("rule a vlan=none inner-vlan=5", "second tag"),
    ("rule a b", "no condition"), ("rules a", "no line"),
    ("rule a vlan=4096", "0 to 4095"), ("rule a vlan=7-5", "before it begins"),
    ("rule a source=10.0.0.1/8", "write 10.0.0.0/8"), ("rule a source=10.0.0", "no IP address"),
    ("rule a source=10.0.0.0/33", "0 to 32"), ("rule a source=::/129", "0 to 128"),
    ("rule a source=10.0.0.1 destination=::1", "the other IPv6"),
    ("rule a drop deliver", "verdict already"), ("rule a to=", "no name"),
    ("rule a to=x,x", "twice"), ("rule a drop=1", "no value"),
    ("rule a mark=4294967296", "no number"),
    ("rule a limit=10", "no unit"), ("rule a limit=0pps", "no number"),
    ("rule a burst=1", "no limit"),
    ("rule a limit=18446744073709551615kbit/s", "no number"),
    ("rule a ethertype=0x5ff", "1536"), ("rule a ethertype=+8", "no number"),
    ("rule a protocol=256", "no number"), ("rule a protocol=nothing", "no protocol nothing"),
    ("rule a protocol=icmp source-port=1", "no ports"),
    ("rule a source-port=1 icmp-type=1", "no packet"),
    ("rule a fragment=yes", "write fragment="), ("rule a dscp=64", "0 to 63"),
    ("rule a vlan=1 vlan=2", "twice"), ("rule a x.y=1", "no protocol x"),
    ("rule a x.y.z=1", "no field"),
    ("rule a source-mac=1:2:3:4:5:6", "no Ethernet address"),
    ("rule a source-mac=02:00:00:00:00:01/24", "outside its mask"),
    ("rule a\nrule a", "of that name"),
    ("protocol p", "above= is missing"), ("protocol p above=udp type=1", "header= is missing"),
    ("protocol tcp above=udp type=1 header=1", "means something"),
    ("protocol p above=ethernet type=0x0800 header=1", "understood already"),
    ("protocol p above=udp type=65536 header=1", "no type"),
    ("protocol p above=udp type=1 header=4 field=a:1:4", "outside the header"),
    ("protocol p above=udp type=1 header=0", "1 to 128"),
    ("protocol p above=udp type=1 header=4 field=a:0:9", "no number"),
    ("protocol p above=udp type=1 header=0:1:0:4:0", "no number"),
    ("protocol p above=q type=1 header=1", "no protocol q"),
    ("protocol p above=udp type=1 header=1 next=0:1:p", "no protocol stands above"),
    (
      "protocol p above=udp type=1 header=1\nprotocol q above=udp type=1 header=1",
      "another protocol's"
    ),
    ("protocol p above=udp type=1 header=1 field=a:0:1\nrule a p.b=1", "no field b"),
    ("protocol p above=udp type=1 header=1 field=a:0:1\nrule a p.a=256", "does not fit"),
  ])
  func anythingElseIsRefused(_ text: String, _ reason: String) {
    do {
      _ = try RuleSet("\n" + text)
      Issue.record("\(text) was taken")
    } catch {
      #expect(error.description.contains(reason), "\(error)")
      #expect(error.line == 1 + text.split(separator: "\n").count, "\(error)")
    }
  }

  @Test func aSetHasSoManyRulesAndNoMore() throws {
    var set = RuleSet()
    for number in 0...RuleSet.maximumRules { set.rules.append(Rule(name: "r\(number)")) }
    #expect(throws: RuleError.self) { try set.check() }
  }
}
