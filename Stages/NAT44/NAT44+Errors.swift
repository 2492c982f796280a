import Stage
import Steering

/// ICMP errors, which have in them the beginning of the packet that they are about (RFC 792; RFC 5508, 4.2). It was
/// translated, and is translated back.
extension NAT44 {
  /// An error from outside, about a packet that has left.
  mutating func translateErrorIn(
    _ packet: inout StagePacket, _ header: PacketHeader, _ now: UInt64
  ) -> Bool {
    guard let inner = InnerPacket(packet, header), inner.source == configuration.outside else {
      return false
    }
    var new: (address: UInt32, port: UInt16)
    if let forward = forwarded(inner.transport, to: inner.sourcePort) {
      new = (forward.address, forward.port)
    } else {
      // Unlike a packet of the flow, an error keeps nothing open (RFC 5508, REQ-3).
      guard let index = table.find(outsidePort: inner.sourcePort, inner.transport, at: now),
        table[index].key.remoteAddress == inner.destination,
        table[index].key.remotePort == inner.destinationPort
      else { return false }
      new = (table[index].key.address, table[index].key.port)
    }
    let change = inner.rewrite(&packet, .source, new.address, new.port)
    correct(&packet, header, change)
    return packet.rewrite(
      header, HeaderChange(destination: NetworkAddress(ipv4: new.address)))
  }

  private func correct(
    _ packet: inout StagePacket, _ header: PacketHeader, _ change: ChecksumChange
  ) {
    guard let sum = ChecksumField(header.transport, isIPv6: false) else { return }
    packet.correct(
      sum, at: Int(header.transportOffset), pseudoHeader: ChecksumChange(), contents: change)
  }

  /// An error from inside, about a packet that has come in.
  mutating func translateErrorOut(
    _ packet: inout StagePacket, _ header: PacketHeader, _ now: UInt64
  ) -> Bool {
    guard let inner = InnerPacket(packet, header), configuration.isInside(inner.destination) else {
      return false
    }
    var port = forwarded(inner.transport, from: inner.destination, inner.destinationPort)
    if port == nil {
      let key = NATFlowKey(
        transport: inner.transport, address: inner.destination, port: inner.destinationPort,
        remoteAddress: inner.source, remotePort: inner.sourcePort)
      port = table.find(key, at: now).map { table[$0].outsidePort }
    }
    guard let port else { return false }
    let change = inner.rewrite(&packet, .destination, configuration.outside, port)
    correct(&packet, header, change)
    return packet.rewrite(
      header, HeaderChange(source: NetworkAddress(ipv4: configuration.outside)))
  }
}

/// The packet inside an ICMP error, as far as it is there: its IP header and the first bytes behind it. Of an ICMP echo the
/// identifier is the port of who has sent the request.
private struct InnerPacket {
  let transport: UInt8
  let source: UInt32
  let destination: UInt32
  let sourcePort: UInt16
  let destinationPort: UInt16
  private let network: Int
  private let transportOffset: Int
  private let isEcho: Bool
  private let packetEnd: Int

  enum End { case source, destination }

  /// - Returns: nil where it is cut off before its ports, a later fragment, or of a protocol that is not translated.
  init?(_ packet: borrowing StagePacket, _ header: PacketHeader) {
    let network = Int(header.transportOffset) + 8
    packetEnd = packet.end(of: header)
    guard network + 20 <= packetEnd else { return nil }
    let first = packet.number8(at: network)
    let headerBytes = Int(first & 15) * 4
    guard first >> 4 == 4, headerBytes >= 20, packet.number16(at: network + 6) & 0x1fff == 0,
      network + headerBytes + 8 <= packetEnd
    else { return nil }
    self.network = network
    transportOffset = network + headerBytes
    transport = packet.number8(at: network + 9)
    source = packet.number32(at: network + 12)
    destination = packet.number32(at: network + 16)
    isEcho = transport == 1
    switch transport {
    case 6, 17:
      sourcePort = packet.number16(at: transportOffset)
      destinationPort = packet.number16(at: transportOffset + 2)
    case 1:
      let identifier = packet.number16(at: transportOffset + 4)
      switch packet.number8(at: transportOffset) {
      case 8: (sourcePort, destinationPort) = (identifier, 0)
      case 0: (sourcePort, destinationPort) = (0, identifier)
      default: return nil
      }
    default: return nil
    }
  }

  /// Writes an address and a port, and brings the checksums inside along as far as they are there.
  /// - Returns: what the checksum around it has to follow.
  func rewrite(
    _ packet: inout StagePacket, _ end: End, _ address: UInt32, _ port: UInt16
  ) -> ChecksumChange {
    var all = ChecksumChange()
    var addresses = ChecksumChange()
    packet.replace32(address, at: network + (end == .source ? 12 : 16), &addresses)
    all.add(addresses)
    let networkSum = packet.number16(at: network + 10)
    packet.replace16(addresses.applied(to: networkSum), at: network + 10, &all)
    var ports = ChecksumChange()
    let place = isEcho ? 4 : end == .source ? 0 : 2
    packet.replace16(port, at: transportOffset + place, &ports)
    all.add(ports)
    // Where the device completed it, it was completed on the wire: what is inside is never a partial sum.
    if let sum = ChecksumField(transport, isIPv6: false),
      transportOffset + sum.offset + 2 <= packetEnd
    {
      let old = packet.number16(at: transportOffset + sum.offset)
      if sum.mayBeMissing && old == 0 { return all }
      if sum.hasPseudoHeader { ports.add(addresses) }
      let new = ports.applied(to: old)
      packet.replace16(
        sum.mayBeMissing && new == 0 ? 0xffff : new, at: transportOffset + sum.offset, &all)
    }
    return all
  }
}
