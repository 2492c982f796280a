extension PacketHeader {
  /// What an answer to the packet would look like: sender and receiver change places.
  public var reversed: PacketHeader {
    var answer = self
    answer.destinationStation = sourceStation
    answer.sourceStation = destinationStation
    answer.source = destination
    answer.destination = source
    answer.sourcePort = destinationPort
    answer.destinationPort = sourcePort
    return answer
  }
}

extension DeliveryRules {
  /// Whether a packet says that it comes from this interface, and nothing in it contradicts that.
  public func isFromStation(_ packet: PacketHeader) -> Bool {
    let station = header.station
    switch packet.kind {
    case .malformed, .tagged: return false
    case .arp: return packet.sourceStation == station && packet.senderStation == station
    case .other: return packet.sourceStation == station
    case .ipv4, .ipv6: return packet.sourceStation == station && !packet.source.isMulticast
    }
  }
}
