import Steering

/// A set of claims that an instance may make, as a policy names it: a claim, or one with a prefix instead of an address
/// (`ipv4:10.0.0.0/24`, `ipv4:10.0.0.0/24/tcp/8000-8999`, `group:ff02::/16`), or `any`.
public enum ClaimLimit: Sendable, Equatable {
  case any
  case rest
  /// Addresses, and ports of them where some are named.
  case addresses(AddressPrefix, Claim.Transport?, ClosedRange<UInt16>)
  case groups(AddressPrefix)

  public func allows(_ claim: Claim) -> Bool {
    switch (self, claim) {
    case (.any, _), (.rest, .rest): true
    case (.addresses(let prefix, nil, _), .address(let address)): prefix.contains(address)
    case (.addresses(let prefix, let transport, let range), .ports(let address, let of, let ports)):
      prefix.contains(address) && (transport == nil || transport == of)
        && range.lowerBound <= ports.lowerBound && ports.upperBound <= range.upperBound
    case (.groups(let prefix), .group(let group)): prefix.contains(group)
    default: false
    }
  }

  /// The only claim of its kind that it allows; nil where there are several, or where several instances may have it.
  var exactClaim: Claim? {
    switch self {
    case .rest: .rest
    case .addresses(let prefix, nil, _) where prefix.isOne: .address(prefix.address)
    case .addresses(let prefix, let transport?, let ports) where prefix.isOne:
      .ports(prefix.address, transport, ports)
    default: nil
    }
  }

  /// - Parameter text: nil is returned where it is none.
  public init?(_ text: String) {
    switch text {
    case "any": self = .any
    case "rest": self = .rest
    default:
      let kinds = text.split(separator: ":", maxSplits: 1).map(String.init)
      guard kinds.count == 2 else { return nil }
      var parts = kinds[1].split(separator: "/", omittingEmptySubsequences: false).map(String.init)
      guard let address = NetworkAddress(parts.removeFirst()) else { return nil }
      var length = address.bits
      if let first = parts.first, let number = Int(first) {
        guard (0...address.bits).contains(number) else { return nil }
        length = number
        parts.removeFirst()
      }
      let prefix = AddressPrefix(address, length)
      // A host's bits behind a prefix are a mistake that would be taken for another network.
      guard prefix.address == address else { return nil }
      switch kinds[0] {
      case "group" where parts.isEmpty && address.isMulticast: self = .groups(prefix)
      case "ipv4" where !address.isIPv6, "ipv6" where address.isIPv6:
        guard !address.isMulticast else { return nil }
        if parts.isEmpty {
          self = .addresses(prefix, nil, 1...UInt16.max)
          return
        }
        // Ports are written as in a claim.
        let any = address.isIPv6 ? "ipv6:2001:db8::1" : "ipv4:192.0.2.1"
        guard
          case .ports(_, let transport, let ports)? = Claim(
            "\(any)/\(parts.joined(separator: "/"))")
        else { return nil }
        self = .addresses(prefix, transport, ports)
      default: return nil
      }
    }
  }
}

/// Addresses with the same first bits.
public struct AddressPrefix: Sendable, Equatable {
  /// All bits behind the prefix are 0.
  public let address: NetworkAddress
  public let length: Int

  init(_ address: NetworkAddress, _ length: Int) {
    self.length = length
    self.address = address.masked(to: length)
  }

  var isOne: Bool { length == address.bits }

  func contains(_ other: NetworkAddress) -> Bool {
    other.isIPv6 == address.isIPv6 && other.masked(to: length) == address
  }
}

extension NetworkAddress {
  var bits: Int { isIPv6 ? 128 : 32 }

  fileprivate func masked(to length: Int) -> NetworkAddress {
    guard isIPv6 else { return NetworkAddress(ipv4: UInt32(low) & Self.mask32(length)) }
    return NetworkAddress(
      ipv6High: high & Self.mask64(min(length, 64)), low: low & Self.mask64(max(0, length - 64)))
  }

  private static func mask32(_ length: Int) -> UInt32 {
    length == 0 ? 0 : UInt32.max << UInt32(32 - length)
  }

  private static func mask64(_ length: Int) -> UInt64 {
    length == 0 ? 0 : UInt64.max << UInt64(64 - length)
  }
}

extension Claim {
  /// Whether one instance cannot have this while another has `other`: the same address whole, the same ports, or what
  /// nobody has claimed.
  func excludes(_ other: Claim) -> Bool {
    switch (self, other) {
    case (.address(let one), .address(let two)): one == two
    case (.ports(let one, let transport, let ports), .ports(let two, let of, let others)):
      one == two && transport == of && ports.overlaps(others)
    case (.rest, .rest): true
    default: false
    }
  }
}
