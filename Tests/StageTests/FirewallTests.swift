import Channel
import Firewall
import Memory
import Stage
import Testing

@Suite struct FirewallTests {
  private func passes(
    _ bench: inout StageBench<Firewall>, _ frame: Frame, _ way: StagedPacket.Way
  ) -> Bool {
    let out = bench.send(BenchPacket(frame.bytes, way))
    #expect(out.allSatisfy { $0.bytes == frame.bytes && $0.way == way })
    return out.count == 1
  }

  @Test func theFirstRuleDecidesEachWay() throws {
    var bench = try StageBench<Firewall>(
      """
      default drop
      rule web way=receive destination=10.0.0.5 protocol=tcp destination-port=443 accept
      rule scans source=192.0.2.0/24 drop   # both ways
      rule Names-1 protocol=udp destination-port=53 mark=7
      rule out way=transmit source=10.0.0.0/24 accept
      """)
    let web = Frame(
      transport: 6, source: [203, 0, 113, 9], destination: [10, 0, 0, 5], destinationPort: 443)
    expect(passes(&bench, web, .receive))
    expect(!passes(&bench, web, .transmit))
    var tagged = web
    tagged.tags = [7]
    expect(passes(&bench, tagged, .receive))
    var other = web
    other.destinationPort = 444
    expect(!passes(&bench, other, .receive))
    let name = Frame()
    expect(passes(&bench, name, .receive) && passes(&bench, name, .transmit))
    let marked = bench.send(BenchPacket(name.bytes, .receive, mark: 1))
    #expect(marked.map(\.mark) == [7])
    expect(!passes(&bench, Frame(source: [192, 0, 2, 9], destinationPort: 53), .receive))
    expect(passes(&bench, Frame(transport: 1), .transmit))
    expect(!passes(&bench, Frame(transport: 1), .receive))
    expect(bench["rule_web"] == 2 && bench["rule_scans"] == 1 && bench["rule_names_1"] == 3)
    expect(bench["rule_out"] == 1 && bench["dropped_by_default"] == 3)
    expect(bench["rx_dropped"] == 3 && bench["tx_dropped"] == 1)
  }

  @Test func packetsThatCannotBeReadAreDropped() throws {
    var bench = try StageBench<Firewall>("rule ssh protocol=tcp destination-port=22 drop")
    let frame = Frame(
      transport: 6, destinationPort: 22, payload: [1, 2, 3], options: [1, 1, 1, 1], tags: [5])
    for count in 0...frame.bytes.count {
      let out = bench.send(BenchPacket(Array(frame.bytes[..<count]), .receive))
      #expect(out.isEmpty, "\(count) bytes")
    }
    // A later fragment that would write over the ports; one further on harms nobody.
    expect(!passes(&bench, Frame(transport: 6, payload: [0, 0, 0, 0], fragment: 1), .receive))
    expect(passes(&bench, Frame(transport: 6, payload: [0, 0, 0, 0], fragment: 2), .receive))
    expect(bench["malformed"] == UInt64(frame.transportOffset + 20 + 1))
    var open = try StageBench<Firewall>("malformed accept\nrule ssh protocol=tcp drop")
    let cut = Array(frame.bytes[..<50])
    #expect(open.send(BenchPacket(cut, .receive)).map(\.bytes) == [cut])
    expect(open["malformed"] == 1 && open["passed_by_default"] == 1)
  }

  @Test func moreRulesThanCounters() throws {
    let text = (0..<200).map { "rule r\($0) protocol=udp destination-port=\($0 + 1) drop" }
    var bench = try StageBench<Firewall>(text.joined(separator: "\n"))
    for port in 1...200 as ClosedRange<UInt16> {
      expect(!passes(&bench, Frame(destinationPort: port), .transmit))
    }
    expect(passes(&bench, Frame(destinationPort: 201), .transmit))
    expect(bench["rule_r0"] == 1 && bench["rule_r46"] == 1 && bench["rules_others"] == 153)
  }

  @Test(arguments: [
    ("rule a\nrule b way=up drop", "line 2"), ("rule a to=b", "sends packets to nobody"),
    ("rule a drop\n\nrule a drop", "line 3"), ("default maybe", "accept or drop"),
    ("rule a limit=5pps", "limits no rates"), ("rule a clone=b", "copies no packets"),
    ("rule a way=receive\nrule b way=transmit colour=red", "line 2"),
    ("rule a mark=65536", "65535"), ("nonsense", "no line begins so"),
  ])
  func wrongRulesSayWhatIsWrong(text: String, part: String) {
    let error = #expect(throws: StageError.self) { _ = try StageBench<Firewall>(text) }
    #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
  }
}
