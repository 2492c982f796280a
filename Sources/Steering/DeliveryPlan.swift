/// Claims gathered by address before they are laid out flat.
struct DeliveryPlan {
  private struct Address {
    var whole: Int?
    var groups: [Int] = []
    /// In the order in which they were claimed.
    var ports: [(transport: Claim.Transport, ports: ClosedRange<UInt16>, owner: Int)] = []
  }

  private var addresses: [NetworkAddress: Address] = [:]
  private var rest: Int?

  mutating func add(_ claim: Claim, of instance: Int) throws(ClaimConflict) {
    precondition((0..<64).contains(instance))
    switch claim {
    case .rest:
      if let rest { throw ClaimConflict(claim: claim, held: .rest, owner: rest) }
      rest = instance
    case .group(let group):
      if addresses[group, default: Address()].groups.contains(instance) {
        throw ClaimConflict(claim: claim, held: claim, owner: instance)
      }
      addresses[group, default: Address()].groups.append(instance)
    case .address(let address):
      if let owner = addresses[address, default: Address()].whole {
        throw ClaimConflict(claim: claim, held: claim, owner: owner)
      }
      addresses[address, default: Address()].whole = instance
    case .ports(let address, let transport, let ports):
      for held in addresses[address, default: Address()].ports
      where held.transport == transport && held.ports.overlaps(ports) {
        throw ClaimConflict(
          claim: claim, held: .ports(address, transport, held.ports), owner: held.owner)
      }
      addresses[address, default: Address()].ports.append((transport, ports, instance))
    }
  }

  /// Lays everything out: at most a quarter of the entries is used, so that a search is short wherever addresses fall.
  func rules(station: UInt64, attached: UInt64) -> DeliveryRules {
    var count = 16
    while count < 4 * addresses.count { count *= 2 }
    let rangeCount = addresses.values.reduce(0) { $0 + $1.ports.count }
    let entriesBytes = count * MemoryLayout<DeliveryRules.Entry>.stride
    let byteCount =
      DeliveryRules.entriesOffset + entriesBytes
      + rangeCount * MemoryLayout<DeliveryRules.Range>.stride
    let start = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 64)
    start.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    // Who claims addresses does not choose where they fall.
    let seed = UInt64.random(in: 0...(.max))
    let header = DeliveryRules.Header(
      station: station, attached: attached, rest: Self.bit(rest), seed: seed,
      mask: UInt64(count - 1))
    start.storeBytes(of: header, as: DeliveryRules.Header.self)
    let rules = DeliveryRules(start: start)
    let ranges = start + DeliveryRules.entriesOffset + entriesBytes
    var used = 0
    for (address, claims) in addresses {
      var index = DeliveryRules.hash(address, seed) & header.mask
      while rules.entries[Int(index)].family != 0 { index = (index + 1) & header.mask }
      rules.entries[Int(index)] = Self.entry(address, claims, firstRange: used)
      for range in Self.ranges(claims) {
        (ranges + used * MemoryLayout<DeliveryRules.Range>.stride)
          .storeBytes(of: range, as: DeliveryRules.Range.self)
        used += 1
      }
    }
    return rules
  }

  private static func entry(
    _ address: NetworkAddress, _ claims: Address, firstRange: Int
  ) -> DeliveryRules.Entry {
    let claimants = claims.groups + claims.ports.map(\.owner) + (claims.whole.map { [$0] } ?? [])
    return DeliveryRules.Entry(
      high: address.high, low: address.low,
      claimants: claimants.reduce(0) { $0 | bit($1) }, whole: bit(claims.whole),
      responsible: bit(claims.whole ?? claims.ports.first?.owner),
      family: address.isIPv6 ? 6 : 4, firstRange: UInt32(firstRange),
      rangeCount: UInt32(claims.ports.count))
  }

  private static func ranges(_ claims: Address) -> [DeliveryRules.Range] {
    claims.ports.map {
      let transport = UInt32($0.transport.rawValue) << 16
      return DeliveryRules.Range(
        lower: transport | UInt32($0.ports.lowerBound),
        upper: transport | UInt32($0.ports.upperBound), owner: bit($0.owner))
    }.sorted { $0.lower < $1.lower }
  }

  private static func bit(_ instance: Int?) -> UInt64 { instance.map { 1 << UInt64($0) } ?? 0 }
}
