/// What a packet must look like: everything that is set. Nothing set means every packet.
///
/// IP addresses, ports and ICMP are those of the first IP header, also behind VLAN tags. What is malformed there has no IP
/// address, protocol, port or message: only conditions on Ethernet can hold.
public struct RuleMatch: Sendable, Hashable {
  /// Behind VLAN tags and headers of one's own; from 0x600 on.
  public var etherType: UInt16?
  /// The first VLAN tag, and the second.
  public var vlan: TagPattern?
  public var innerVLAN: TagPattern?
  /// Of the first tag, 0 to 7.
  public var vlanPriority: UInt8?
  public var sourceStation: StationPattern?
  public var destinationStation: StationPattern?
  public var source: AddressPrefix?
  public var destination: AddressPrefix?
  /// The IP protocol behind all headers that are understood.
  public var transport: UInt8?
  /// A protocol of one's own of which there is a header.
  public var header: String?
  /// 6 bits.
  public var differentiatedServices: UInt8?
  public var fragment: FragmentPattern?
  /// Of TCP, UDP and SCTP; later fragments have none.
  public var sourcePorts: ClosedRange<UInt16>?
  public var destinationPorts: ClosedRange<UInt16>?
  /// Of ICMP and ICMPv6.
  public var messageType: UInt8?
  public var messageCode: UInt8?
  public var fields: [FieldPattern] = []

  public init() {}
}

/// A VLAN tag.
public enum TagPattern: Sendable, Hashable {
  case none
  case any
  /// Up to 4095; 0 is a tag that has a priority only.
  case ids(ClosedRange<UInt16>)
}

/// Ethernet addresses that have some bits in common: 48 bits, the first byte on the wire highest.
public struct StationPattern: Sendable, Hashable {
  /// No bit is set that is not in ``mask``.
  public var address: UInt64
  public var mask: UInt64

  public init(_ address: UInt64, mask: UInt64 = 0xffff_ffff_ffff) {
    self.address = address
    self.mask = mask
  }
}

/// IP addresses that have their first bits in common.
public struct AddressPrefix: Sendable, Hashable {
  /// No bit is set behind the prefix.
  public var address: NetworkAddress
  /// 0 to 32, or to 128.
  public var length: UInt8

  public init(_ address: NetworkAddress, length: UInt8) {
    self.address = address
    self.length = length
  }

  var maximumLength: UInt8 { address.isIPv6 ? 128 : 32 }

  /// The bits of ``NetworkAddress/high`` and ``NetworkAddress/low`` that count.
  var masks: (high: UInt64, low: UInt64) {
    let ones: (Int) -> UInt64 = { $0 <= 0 ? 0 : ~(.max &>> UInt64(min($0, 64))) }
    let length = Int(length)
    if address.isIPv6 {
      return (length >= 64 ? .max : ones(length), length >= 128 ? .max : ones(length - 64))
    }
    return (0, ones(length) >> 32)
  }
}

/// Which part of a fragmented packet.
public enum FragmentPattern: String, Sendable, Hashable, CaseIterable {
  /// Not fragmented.
  case no
  case first
  case later
  /// The first or a later one.
  case any
}

/// A value of a field of a protocol of one's own.
public struct FieldPattern: Sendable, Hashable {
  /// Of the protocol, and of its field.
  public var header: String
  public var field: String
  public var value: UInt64
  /// Bits of the value that count; nil for all.
  public var mask: UInt64?

  public init(_ header: String, _ field: String, _ value: UInt64, mask: UInt64? = nil) {
    self.header = header
    self.field = field
    self.value = value
    self.mask = mask
  }
}
