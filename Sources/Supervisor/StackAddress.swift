import Glibc

/// An IPv4 address with its prefix length, such as 10.0.0.2/24.
public struct StackAddress: LosslessStringConvertible, Sendable, Equatable {
  public var address: UInt32
  public var prefixLength: Int

  public init?(_ text: String) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, let length = Int(parts[1]), (1...30).contains(length),
      let address = Self.parse(String(parts[0]))
    else { return nil }
    self.address = address
    prefixLength = length
    let host = address & (UInt32.max >> UInt32(length))
    // Neither the network's own address nor its broadcast address.
    if host == 0 || host == UInt32.max >> UInt32(length) { return nil }
  }

  private init(address: UInt32, prefixLength: Int) {
    self.address = address
    self.prefixLength = prefixLength
  }

  /// An address in dotted form, in host byte order.
  public static func parse(_ text: String) -> UInt32? {
    var parsed = in_addr()
    guard inet_pton(AF_INET, text, &parsed) == 1 else { return nil }
    return UInt32(bigEndian: parsed.s_addr)
  }

  /// The first other address of the same network, for the peer at the far end of an emulated wire.
  public var neighbour: StackAddress {
    let network = address & ~(UInt32.max >> UInt32(prefixLength))
    return StackAddress(
      address: network + 1 == address ? network + 2 : network + 1, prefixLength: prefixLength)
  }

  /// Without the prefix length.
  public var host: String {
    [24, 16, 8, 0].map { "\(address >> $0 & 0xff)" }.joined(separator: ".")
  }

  public var description: String { "\(host)/\(prefixLength)" }
}
