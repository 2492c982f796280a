extension PacketHeader {
  /// A number that both directions of a flow have in common: of addresses, ports and protocol; of the protocol and the
  /// addresses alone for fragments, of which only the first has ports; of stations and EtherType where there is no IP.
  ///
  /// Whoever sends chooses his numbers: it spreads load and protects nothing.
  public var flowHash: UInt32 {
    var (one, other, kind) = (sourceStation, destinationStation, UInt64(etherType))
    if contents.contains(.ip) {
      one = Self.end(source, fragment == .none && contents.contains(.ports) ? sourcePort : 0)
      other = Self.end(
        destination, fragment == .none && contents.contains(.ports) ? destinationPort : 0)
      kind = UInt64(transport)
    }
    // Sum and product do not know which of the two was first.
    let both = (one &+ other) ^ ((one | 1) &* (other | 1)) &>> 7
    return UInt32(truncatingIfNeeded: Self.mix(both ^ kind &<< 48) &>> 32)
  }

  private static func end(_ address: NetworkAddress, _ port: UInt16) -> UInt64 {
    mix(mix(address.high ^ UInt64(port) &<< 48) ^ address.low)
  }

  /// Each bit depends on each: the finaliser of MurmurHash3.
  private static func mix(_ value: UInt64) -> UInt64 {
    var value = value
    value = (value ^ value &>> 33) &* 0xff51_afd7_ed55_8ccd
    value = (value ^ value &>> 33) &* 0xc4ce_b9fe_1a85_ec53
    return value ^ value &>> 33
  }
}
