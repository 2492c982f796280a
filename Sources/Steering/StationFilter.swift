/// Which packets anybody wants, by their destination stations: what a device is told, so that it drops the rest. Packets for
/// the interface's own station and broadcasts are always among them.
///
/// Stations are 48 bits, the first byte on the wire highest.
public struct StationFilter: Equatable, Sendable {
  /// Besides the interface's own.
  public private(set) var stations: Set<UInt64> = []
  /// Those of all IP nodes to begin with (RFC 1112, 6.4; RFC 2464, 7).
  public private(set) var groups: Set<UInt64> = [0x0100_5e00_0001, 0x3333_0000_0001]
  /// Whether any group is wanted, also one that is not named.
  public private(set) var takesAllGroups = false
  /// Whether any packet is wanted, whatever station it is for.
  public private(set) var takesAll = false

  /// More are not told apart.
  public static let maximumStations = 15
  public static let maximumGroups = 64

  /// - Parameters:
  ///   - station: the interface's own.
  ///   - claims: of all instances.
  ///   - rules: what stands before them.
  ///   - hasStages: whether packets go through stages, which may look at any that come.
  public init(
    station: UInt64, claims: some Sequence<Claim>, rules: [Rule] = [], hasStages: Bool = false
  ) {
    takesAllGroups = hasStages
    for claim in claims { add(claim) }
    for rule in rules where rule.actions.wantsPackets { add(rule.match) }
    stations.remove(station)
    if stations.count > Self.maximumStations { takesAll = true }
    if groups.count > Self.maximumGroups { takesAllGroups = true }
  }

  init(stations: Set<UInt64>, groups: Set<UInt64>, takesAllGroups: Bool, takesAll: Bool) {
    self.stations = stations
    self.groups = groups
    self.takesAllGroups = takesAllGroups
    self.takesAll = takesAll
  }

  /// Whether the device knows by itself that a packet is not for the rule's station.
  public func decides(_ match: RuleMatch) -> Bool {
    guard let pattern = match.destinationStation, pattern.mask == 0xffff_ffff_ffff else {
      return false
    }
    return pattern.address >> 40 & 1 != 0
      ? !takesAllGroups && groups.contains(pattern.address)
      : !takesAll && stations.contains(pattern.address)
  }

  private mutating func add(_ claim: Claim) {
    switch claim {
    case .address(let address), .ports(let address, _, _):
      // Neighbour solicitations come to a group that has the address's last bits (RFC 4291, 2.7.1).
      if address.isIPv6 { groups.insert(0x3333_ff00_0000 | address.low & 0xff_ffff) }
    case .group(let group): groups.insert(group.groupStation)
    case .rest: takesAllGroups = true
    }
  }

  private mutating func add(_ match: RuleMatch) {
    guard let pattern = match.destinationStation else {
      guard let destination = match.destination else {
        takesAllGroups = true
        return
      }
      if destination.isGroup {
        groups.insert(destination.address.groupStation)
      } else if destination.hasGroups {
        takesAllGroups = true
      }
      return
    }
    let group: UInt64 = 1 << 40
    let isGroup = pattern.address & group != 0
    if pattern.mask == 0xffff_ffff_ffff {
      if isGroup { groups.insert(pattern.address) } else { stations.insert(pattern.address) }
    } else {
      if isGroup || pattern.mask & group == 0 { takesAllGroups = true }
      if !isGroup { takesAll = true }
    }
  }
}

extension RuleActions {
  /// Whether somebody gets packets by it that claims alone do not give him.
  fileprivate var wantsPackets: Bool {
    if case .to = verdict { return true }
    return !clones.isEmpty || !stages.isEmpty
  }
}

extension AddressPrefix {
  /// Whether it is a single group.
  fileprivate var isGroup: Bool { length == maximumLength && address.isMulticast }

  /// Whether there are groups in it: 224.0.0.0/4 (RFC 5771, 3), ff00::/8 (RFC 4291, 2.7).
  fileprivate var hasGroups: Bool {
    length < (address.isIPv6 ? 8 : 4) || address.isMulticast
  }
}

extension NetworkAddress {
  /// The station to which packets for a group go (RFC 1112, 6.4; RFC 2464, 7).
  fileprivate var groupStation: UInt64 {
    isIPv6 ? 0x3333_0000_0000 | low & 0xffff_ffff : 0x0100_5e00_0000 | low & 0x7f_ffff
  }
}
