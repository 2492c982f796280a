/// As the driver host tells its supervisor, and the supervisor those who ask: `stations=` and `groups=`, each `all`, `none`
/// or addresses with commas between.
extension StationFilter: CustomStringConvertible {
  public var description: String {
    "stations=\(Self.text(stations, isAll: takesAll)) groups=\(Self.text(groups, isAll: takesAllGroups))"
  }

  /// - Parameters:
  ///   - stations: as behind `stations=`.
  ///   - groups: as behind `groups=`.
  /// - Returns: nil where that is no such list, or names more than a device is told.
  public init?(stations: String, groups: String) {
    guard let named = Self.list(stations), named.count <= Self.maximumStations,
      let namedGroups = Self.list(groups), namedGroups.count <= Self.maximumGroups
    else { return nil }
    self.init(
      stations: named, groups: namedGroups, takesAllGroups: groups == "all",
      takesAll: stations == "all")
  }

  private static func text(_ stations: Set<UInt64>, isAll: Bool) -> String {
    if isAll { return "all" }
    return stations.isEmpty
      ? "none" : stations.sorted().map(StationPattern.text).joined(separator: ",")
  }

  private static func list(_ text: String) -> Set<UInt64>? {
    if text == "all" || text == "none" { return [] }
    var stations: Set<UInt64> = []
    for item in text.split(separator: ",", omittingEmptySubsequences: false) {
      guard let station = RuleWord.station(item) else { return nil }
      stations.insert(station)
    }
    return stations
  }
}
