/// Which of up to 64 instances gets a packet: all claims on one interface, in one flat piece of memory that never changes.
///
/// Whoever makes the table owns it and hands out ``rules``; it lives until the last user has let go of them.
public struct DeliveryTable: ~Copyable, @unchecked Sendable {
  /// What is looked up in.
  public let rules: DeliveryRules

  /// - Parameters:
  ///   - station: the interface's Ethernet address, 48 bits, the first byte on the wire highest.
  ///   - claims: who claims what, by number of instance (0 to 63), in the order in which it was claimed.
  ///   - attached: a bit for each instance that takes part.
  /// - Throws: the first claim that cannot stand beside one before it.
  public init(
    station: UInt64, claims: [(instance: Int, claim: Claim)], attached: UInt64
  ) throws(ClaimConflict) {
    var plan = DeliveryPlan()
    for (instance, claim) in claims { try plan.add(claim, of: instance) }
    rules = plan.rules(station: station, attached: attached)
  }

  deinit { rules.start.deallocate() }
}

/// A claim that cannot stand beside another.
public struct ClaimConflict: Error, Equatable, Sendable, CustomStringConvertible {
  public var claim: Claim
  /// What is claimed already, and by which instance.
  public var held: Claim
  public var owner: Int

  public var description: String { "\(claim) is held by instance \(owner), as \(held)" }
}

/// What is to be done with a received packet.
public enum DropReason: UInt8, BitwiseCopyable, Sendable {
  /// Nobody claims it, and nobody takes the rest.
  case unclaimed
  /// It is for another station.
  case foreign
  case malformed
}

/// A view of a ``DeliveryTable``: a plain value. Any thread, as long as the table lives.
@frozen
public struct DeliveryRules: BitwiseCopyable, @unchecked Sendable {
  // Invariant: `start` points at a header, then `mask + 1` entries of which at least one is unused, then the ranges to
  // which they refer. None of it changes.
  @usableFromInline let start: UnsafeMutableRawPointer

  /// What stands before the entries.
  struct Header {
    var station: UInt64
    /// A bit for each instance.
    var attached: UInt64
    /// The instance that takes the rest, or none.
    var rest: UInt64
    var seed: UInt64
    var mask: UInt64
  }

  /// An address, or a group, and who claims it.
  struct Entry {
    var high: UInt64
    var low: UInt64
    /// A bit for each instance that claims the address, some of its ports, or the group.
    var claimants: UInt64
    /// Who has the whole address.
    var whole: UInt64
    /// Who answers for the address.
    var responsible: UInt64
    /// 0 where the entry is unused, else 4 or 6.
    var family: UInt32
    var firstRange: UInt32
    var rangeCount: UInt32
    var unused: UInt32 = 0
  }

  /// Ports of an address; those of one address are in order and do not overlap.
  struct Range {
    /// Protocol and port in one number.
    var lower: UInt32
    var upper: UInt32
    var owner: UInt64
  }

  static let entriesOffset = 64

  /// Who gets a packet, a bit for each instance: several get a copy each.
  /// - Returns: 0 where nobody does; `reason` then says why.
  public func recipients(of packet: PacketHeader, _ reason: inout DropReason) -> UInt64 {
    reason = .unclaimed
    if packet.kind == .malformed {
      reason = .malformed
      return 0
    }
    let header = self.header
    // The lowest bit of the first byte: a group (IEEE 802.3, 3.2.3).
    if packet.destinationStation != header.station && packet.destinationStation &>> 40 & 1 == 0 {
      reason = .foreign
      return 0
    }
    switch packet.kind {
    case .tagged, .other, .malformed: return header.rest
    case .arp:
      guard let entry = find(packet.destination) else { return header.rest }
      return packet.message == .addressReply ? entry.claimants : entry.responsible
    case .ipv4, .ipv6:
      return packet.destination.isMulticast
        ? recipients(ofGroup: packet, header) : recipients(ofUnicast: packet, header)
    }
  }

  private func recipients(ofGroup packet: PacketHeader, _ header: Header) -> UInt64 {
    if packet.message == .neighbourSolicitation {
      return find(packet.target)?.responsible ?? header.rest
    }
    if packet.message == .routerAdvertisement || Self.isAllNodes(packet.destination) {
      return header.attached
    }
    return find(packet.destination)?.claimants ?? header.rest
  }

  private func recipients(ofUnicast packet: PacketHeader, _ header: Header) -> UInt64 {
    guard let entry = find(packet.destination) else { return header.rest }
    switch packet.message {
    case .echoReply, .neighbourAdvertisement: return entry.claimants
    case .routerAdvertisement: return header.attached
    case .neighbourSolicitation: return find(packet.target)?.responsible ?? entry.responsible
    case .error:
      guard packet.innerPort > 0, let inner = find(packet.target) else { return entry.responsible }
      return owner(of: inner, packet.innerTransport, packet.innerPort) ?? entry.responsible
    default: break
    }
    if packet.fragment != .none { return entry.responsible }
    if !packet.hasPorts { return entry.responsible }
    return owner(of: entry, packet.transport, packet.destinationPort) ?? header.rest
  }

  var header: Header { start.load(as: Header.self) }

  /// 224.0.0.1 (RFC 1112, 4) and ff02::1 (RFC 4291, 2.7.1).
  static func isAllNodes(_ address: NetworkAddress) -> Bool {
    address.isIPv6
      ? address.high == 0xff02 << 48 && address.low == 1 : address.low == 0xe000_0001
  }

  /// Who has a port: by a claim to it, else by one to the whole address.
  func owner(of entry: Entry, _ transport: UInt8, _ port: UInt16) -> UInt64? {
    let key = UInt32(transport) &<< 16 | UInt32(port)
    let ranges = self.ranges + Int(entry.firstRange)
    var first = 0
    var end = Int(entry.rangeCount)
    while first < end {
      let middle = (first &+ end) &>> 1
      let range = ranges[middle]
      if key > range.upper {
        first = middle &+ 1
      } else if key < range.lower {
        end = middle
      } else {
        return range.owner
      }
    }
    return entry.whole == 0 ? nil : entry.whole
  }

  /// The entry of an address or a group.
  func find(_ address: NetworkAddress) -> Entry? {
    let (seed, mask) = (header.seed, header.mask)
    let family: UInt32 = address.isIPv6 ? 6 : 4
    var index = Self.hash(address, seed)
    while true {
      let entry = entries + Int(truncatingIfNeeded: index & mask)
      if entry.pointee.family == 0 { return nil }
      if entry.pointee.low == address.low && entry.pointee.high == address.high
        && entry.pointee.family == family
      {
        return entry.pointee
      }
      index &+= 1
    }
  }

  /// Multiplication spreads to the left: what is used are the upper bits.
  static func hash(_ address: NetworkAddress, _ seed: UInt64) -> UInt64 {
    let mixed = ((address.high ^ seed) &* 0x9e37_79b9_7f4a_7c15) ^ address.low
    return ((mixed ^ seed &>> 32) &* 0xff51_afd7_ed55_8ccd) &>> 40
  }

  var entries: UnsafeMutablePointer<Entry> {
    (start + Self.entriesOffset).assumingMemoryBound(to: Entry.self)
  }

  private var ranges: UnsafeMutablePointer<Range> {
    let count = Int(truncatingIfNeeded: header.mask) &+ 1
    return (start + Self.entriesOffset + count &* MemoryLayout<Entry>.stride)
      .assumingMemoryBound(to: Range.self)
  }
}
