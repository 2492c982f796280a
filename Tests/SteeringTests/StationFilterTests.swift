import Testing

@testable import Steering

@Suite struct StationFilterTests {
  private static let station: UInt64 = 0x5254_0012_3456
  private static let nodes = "01:00:5e:00:00:01"
  private static let nodes6 = "33:33:00:00:00:01"

  private func filter(
    _ claims: [String], _ rules: String = "", hasStages: Bool = false
  ) throws -> StationFilter {
    StationFilter(
      station: Self.station, claims: claims.compactMap(Claim.init), rules: try RuleSet(rules).rules,
      hasStages: hasStages)
  }

  @Test(arguments: [
    (["ipv4:10.0.0.3", "ipv4:10.0.0.3/tcp/80"], nodes + "," + nodes6),
    (["ipv6:fd00::1:2203"], nodes + "," + nodes6 + ",33:33:ff:01:22:03"),
    (["ipv6:fd00::8/udp/53"], nodes + "," + nodes6 + ",33:33:ff:00:00:08"),
    // Only the last 23 bits count.
    (["group:239.129.2.3", "group:224.1.2.3"], nodes + ",01:00:5e:01:02:03," + nodes6),
    (["group:ff02::1:fb"], nodes + "," + nodes6 + ",33:33:00:01:00:fb"),
    (["rest"], "all"),
  ]) func groupsAreThoseThatClaimsNeed(claims: [String], groups: String) throws {
    #expect(try filter(claims).description == "stations=none groups=\(groups)")
  }

  @Test(arguments: [
    ("drop", "none", false), ("protocol=udp drop", "none", false),
    ("protocol=udp deliver", "none", false),
    // Anything may be for a group.
    ("protocol=udp to=a", "none", true), ("ethertype=0x88cc clone=a", "none", true),
    ("source=10.0.0.0/8 to=a", "none", true), ("stage=x", "none", true),
    ("destination=10.0.0.0/8 to=a", "none", false), ("destination=0.0.0.0/0 to=a", "none", true),
    ("destination=224.0.0.0/5 to=a", "none", true), ("destination=fd00::/8 to=a", "none", false),
    ("destination=fe00::/7 to=a", "none", true),
    ("destination-mac=02:00:00:00:00:99 to=a", "02:00:00:00:00:99", false),
    ("destination-mac=02:00:00:00:00:99 drop", "none", false),
    ("destination-mac=02:00:00:00:00:99 drop clone=a", "02:00:00:00:00:99", false),
    ("destination-mac=52:54:00:12:34:56 to=a", "none", false),
    ("destination-mac=02:00:00:00:00:00/24 to=a", "all", false),
    ("destination-mac=01:00:00:00:00:00/8 to=a", "none", true),
    ("destination-mac=00:00:00:00:00:00/0 to=a", "all", true),
  ]) func rulesWiden(rule: String, stations: String, allGroups: Bool) throws {
    let groups = allGroups ? "all" : "\(Self.nodes),\(Self.nodes6)"
    #expect(
      try filter([], "rule r \(rule)").description == "stations=\(stations) groups=\(groups)")
  }

  @Test func singleGroupsAreNamed() throws {
    let rules = """
      rule lldp destination-mac=01:80:c2:00:00:0e to=a
      rule mdns destination=224.0.0.251 to=a
      rule mdns6 destination=ff02::fb to=a
      """
    let named = try filter([], rules)
    #expect(
      named.description == "stations=none groups=\(Self.nodes),01:00:5e:00:00:fb,"
        + "01:80:c2:00:00:0e,\(Self.nodes6),33:33:00:00:00:fb")
    let matches = try RuleSet(rules).rules.map(\.match)
    #expect(matches.map(named.decides) == [true, false, false])
  }

  @Test func whatADeviceCannotTellApartIsNotAskedOfIt() throws {
    let stations = (0..<16).map {
      "rule r\($0) destination-mac=02:00:00:00:00:\(hexadecimal($0, digits: 2)) to=a\n"
    }
    #expect(try !filter([], stations.dropLast().joined()).takesAll)
    #expect(try filter([], stations.joined()).takesAll)
    let groups = (0..<63).map { "group:224.0.1.\($0)" }
    #expect(try !filter(Array(groups.dropLast())).takesAllGroups)
    #expect(try filter(groups).takesAllGroups)
    #expect(try filter([], hasStages: true).takesAllGroups)
  }

  @Test func textIsReadAgain() throws {
    for claims in [["rest"], ["ipv6:fd00::8"], []] {
      for rules in [
        "", "rule r destination-mac=02:00:00:00:00:99 to=a",
        "rule r destination-mac=00:00:00:00:00:00/0 to=a",
      ] {
        let filter = try filter(claims, rules)
        let parts = filter.description.split(separator: " ").map { $0.split(separator: "=")[1] }
        let again = try #require(
          StationFilter(stations: String(parts[0]), groups: String(parts[1])))
        #expect(again.description == filter.description)
      }
    }
    for text in [
      "", "some", "02:00:00:00:00", "02:00:00:00:00:99,", "02:00:00:00:00:9g", "all,all",
    ] {
      #expect(StationFilter(stations: text, groups: "all") == nil)
      #expect(StationFilter(stations: "all", groups: text) == nil)
    }
    let many = (0..<65).map { "02:00:00:00:00:" + hexadecimal($0, digits: 2) }.joined(
      separator: ",")
    #expect(StationFilter(stations: many, groups: "all") == nil)
    #expect(StationFilter(stations: "all", groups: many) == nil)
  }
}
