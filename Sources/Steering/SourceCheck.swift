extension DeliveryRules {
  /// Whether an instance may send a frame: it comes from the interface's station and from an address, and a port where
  /// there are any, whose answer would go to that instance. An instance that takes the rest may send from what nobody
  /// else claims.
  ///
  /// ARP and ICMP are allowed from an address of which the instance claims some ports only; so are the probes of
  /// addresses that are no one's yet: ARP from 0.0.0.0 (RFC 5227, 2.1.1), ICMPv6 from :: (RFC 4862, 5.4.2; RFC 3810, 5.2.13).
  /// Frames with a VLAN tag are nobody's to send: what is behind the tag has not been looked at.
  /// - Parameters:
  ///   - packet: of bytes that the instance can no longer change.
  ///   - instance: 0 to 63.
  public func maySend(_ packet: PacketHeader, from instance: Int) -> Bool {
    let bit: UInt64 = 1 &<< UInt64(truncatingIfNeeded: instance)
    let header = self.header
    if packet.sourceStation != header.station { return false }
    switch packet.kind {
    case .malformed, .tagged: return false
    case .other: return header.rest == bit
    case .arp:
      return packet.senderStation == header.station
        && (packet.source.low == 0 || claims(packet.source, bit, header))
    case .ipv4, .ipv6: break
    }
    if packet.source.isMulticast { return false }
    if packet.kind == .ipv6 && packet.source.high == 0 && packet.source.low == 0 {
      return packet.transport == 58 && packet.message != .neighbourAdvertisement
    }
    if packet.message == .neighbourAdvertisement && !claims(packet.target, bit, header) {
      return false
    }
    guard let entry = find(packet.source) else { return header.rest == bit }
    if packet.message != .none { return entry.claimants & bit != 0 }
    if packet.hasPorts {
      return (owner(of: entry, packet.transport, packet.sourcePort) ?? header.rest) == bit
    }
    switch packet.transport {
    // A later fragment: the first one, without which it is worth nothing, has been checked with its ports.
    case 6, 17, 1, 58: return entry.claimants & bit != 0
    default: return entry.responsible == bit
    }
  }

  /// Whether the instance claims the address or some of its ports, or takes the rest and nobody else does.
  private func claims(_ address: NetworkAddress, _ bit: UInt64, _ header: Header) -> Bool {
    guard let entry = find(address) else { return header.rest == bit }
    return entry.claimants & bit != 0
  }
}
