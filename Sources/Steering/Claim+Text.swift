import Glibc

extension Claim: LosslessStringConvertible {
  /// - Parameter text: as ``description`` writes it; nil for anything else.
  public init?(_ text: String) {
    if text == "rest" {
      self = .rest
      return
    }
    let kinds = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard kinds.count == 2 else { return nil }
    let parts = kinds[1].split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    guard let address = NetworkAddress(parts[0]) else { return nil }
    switch kinds[0] {
    case "group" where parts.count == 1 && address.isMulticast: self = .group(address)
    case "ipv4" where address.isIPv6: return nil
    case "ipv6" where !address.isIPv6: return nil
    case "ipv4", "ipv6":
      guard address.isUnicast else { return nil }
      if parts.count == 1 {
        self = .address(address)
        return
      }
      guard parts.count == 3,
        let transport = Transport.allCases.first(where: { $0.name == parts[1] }),
        let ports = Self.ports(parts[2])
      else { return nil }
      self = .ports(address, transport, ports)
    default: return nil
    }
  }

  private static func ports(_ text: String) -> ClosedRange<UInt16>? {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { UInt16($0) }
    guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2,
      first > 0, first <= last
    else { return nil }
    return first...last
  }

  public var description: String {
    switch self {
    case .address(let address): "\(address.kind):\(address)"
    case .ports(let address, let transport, let ports):
      "\(address.kind):\(address)/\(transport.name)/"
        + (ports.count == 1 ? "\(ports.lowerBound)" : "\(ports.lowerBound)-\(ports.upperBound)")
    case .group(let address): "group:\(address)"
    case .rest: "rest"
    }
  }
}

extension NetworkAddress: LosslessStringConvertible {
  /// - Parameter text: dotted, or as RFC 4291, 2.2 writes IPv6 addresses.
  public init?(_ text: String) {
    // The C library would stop there.
    if text.utf8.contains(0) { return nil }
    var four = in_addr()
    if inet_pton(AF_INET, text, &four) == 1 {
      self.init(ipv4: UInt32(bigEndian: four.s_addr))
      return
    }
    var six = in6_addr()
    guard inet_pton(AF_INET6, text, &six) == 1 else { return nil }
    let (high, low) = withUnsafeBytes(of: &six) {
      (
        UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
        UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
      )
    }
    self.init(ipv6High: high, low: low)
  }

  fileprivate var kind: String { isIPv6 ? "ipv6" : "ipv4" }

  /// 224.0.0.0/4 or ff00::/8.
  public var isMulticast: Bool { isIPv6 ? high >> 56 == 0xff : low >> 28 == 0xe }

  /// Whether it can be the address of one interface: not the unspecified one, no group, no broadcast, no loopback.
  public var isUnicast: Bool {
    if isMulticast { return false }
    if isIPv6 { return high != 0 || low > 1 }
    return low >> 24 != 0 && low >> 24 != 127 && low < 0xf000_0000
  }

  public var description: String {
    var buffer = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
    if isIPv6 {
      var bytes = (high.bigEndian, low.bigEndian)
      inet_ntop(AF_INET6, &bytes, &buffer, socklen_t(buffer.count))
    } else {
      var bytes = UInt32(truncatingIfNeeded: low).bigEndian
      inet_ntop(AF_INET, &bytes, &buffer, socklen_t(buffer.count))
    }
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
