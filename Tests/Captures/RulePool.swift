import PlainClassifier
import Steering

/// Rules made from the frames, and for each frame those that match it, as the plain classifier says.
struct RulePool {
  static let protocols = """
    protocol mpls above=ethernet type=0x8847 header=4 field=label:0:4:0xfffff000 field=last:2:1:0x01
    protocol pppoe above=ethernet type=0x8864 header=8 next=6:2:pppoe field=session:2:2
    protocol ppp4 above=pppoe type=0x21 header=20 next=9:1:ip-protocol field=ttl:8:1
    protocol lldp above=ethernet type=0x88cc header=4 field=kind:0:2
    protocol gre-header above=ip type=47 header=4 next=2:2:ethertype field=flags:0:2
    protocol ah-header above=ip type=51 header=1:1:0xff:4:8 next=0:1:ip-protocol field=spi:4:4
    protocol vxlan above=udp type=4789 header=8 field=vni:4:4:0xffffff00
    protocol dns above=udp type=53 header=12 field=query:2:2:0x8000 field=questions:4:2
    protocol gtp above=udp type=2152 header=8 next=1:1:gtp field=tunnel:4:4
    protocol inside above=gtp type=0xff header=20 field=version:0:1
    protocol bgp above=tcp type=179 header=19 field=kind:18:1
    """

  let set: RuleSet
  /// Places in the pool, by frame.
  private(set) var matching: [[Int32]] = []

  init(_ frames: [[UInt8]], rules count: Int, using random: inout some RandomNumberGenerator) throws
  {
    var set = try RuleSet(Self.protocols)
    let packets = frames.map { PlainPacket($0, set.protocols) }
    while set.rules.count < count {
      guard let packet = packets.randomElement(using: &random) else { break }
      let number = set.rules.count
      var actions = RuleActions(number % 3 == 0 ? .drop : .to(["a", "b"]))
      actions.mark = UInt32(number)
      let rule = Rule(
        name: "r\(number)", match: packet.likelyMatch(using: &random), actions: actions)
      // Few that ask for little: they leave nothing to those behind them.
      let isWide =
        rule.match.source == nil && rule.match.destination == nil && rule.match.fields.isEmpty
        && rule.match.sourceStation == nil
      if isWide && (rule.match == RuleMatch() || number % 100 != 0) { continue }
      guard (try? RuleSet(protocols: set.protocols, rules: [rule]).check()) != nil else { continue }
      set.rules.append(rule)
    }
    self.set = set
    matching = packets.map { packet in
      set.rules.indices.filter { packet.matches(set.rules[$0].match) }.map { Int32($0) }
    }
  }
}
