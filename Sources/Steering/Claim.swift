/// What an instance asks to receive, and from which addresses it may send: one address with all of its ports or some of
/// them, a multicast group, or all that nobody else has claimed.
///
/// As text, in policy files, on command lines and in messages alike:
/// `ipv4:10.0.0.3`, `ipv4:10.0.0.3/tcp/80`, `ipv4:10.0.0.3/udp/5000-5999`, the same with `ipv6:`, `group:224.0.0.251`,
/// `group:ff02::fb`, `rest`.
public enum Claim: Hashable, Sendable {
  /// Everything to an address that no claim to ports of it takes.
  case address(NetworkAddress)
  /// What comes to ports of an address. ARP, neighbour discovery and ICMP for an address of which only ports are claimed
  /// go to the instance that claimed first.
  case ports(NetworkAddress, Transport, ClosedRange<UInt16>)
  /// What is sent to a multicast group; several instances may claim one, and each gets its own.
  case group(NetworkAddress)
  /// What nobody has claimed, other protocols and broadcasts included. It allows sending from any address that nobody
  /// else has claimed.
  case rest

  /// A transport protocol with ports. Raw values are IP protocol numbers.
  public enum Transport: UInt8, Sendable, CaseIterable {
    case tcp = 6
    case udp = 17

    var name: String { self == .tcp ? "tcp" : "udp" }
  }
}

/// An IPv4 or IPv6 address. Its bytes are in network order: the first byte of the address is the most significant of
/// ``high`` for IPv6, and an IPv4 address is the low 32 bits of ``low``.
public struct NetworkAddress: Hashable, Sendable, BitwiseCopyable {
  public var isIPv6: Bool
  public var high: UInt64
  public var low: UInt64

  public init(ipv4: UInt32) {
    isIPv6 = false
    high = 0
    low = UInt64(ipv4)
  }

  public init(ipv6High high: UInt64, low: UInt64) {
    isIPv6 = true
    self.high = high
    self.low = low
  }
}
