import FuzzHarness
import Steering

/// The headers of a frame, whom it is for and who may send it, compared with a plain search through all claims.
let delivery = FuzzTarget("delivery") { input in
  var input = input
  let claims = claims(&input)
  let station: UInt64 = 0x5254_006d_6172
  do throws(ClaimConflict) {
    let table = try DeliveryTable(station: station, claims: claims, attached: .max)
    let rules = table.rules
    let bytes = input.bytes
    // Of exactly that size, so that a byte behind the end is seen.
    let frame = UnsafeMutableRawPointer.allocate(byteCount: max(1, bytes.count), alignment: 1)
    defer { frame.deallocate() }
    frame.copyMemory(from: bytes, byteCount: bytes.count)
    let packet = PacketHeader(frame: frame, byteCount: bytes.count)
    if FlowKey(frame: frame, byteCount: bytes.count) != nil {
      let isWhole = packet.fragment == .none && packet.message == .none && packet.tagCount == 0
      require(
        isWhole && (packet.transport == 6 || packet.transport == 17)
          && (packet.kind == .ipv4 || packet.kind == .ipv6), "\(packet) has a flow's key")
    }
    var reason = DropReason.unclaimed
    let recipients = rules.recipients(of: packet, &reason)
    if packet.destinationStation == station, let expected = expected(packet, claims) {
      require(recipients == expected, "\(packet) goes to \(recipients), not to \(expected)")
    }
    for instance in 0..<4 where rules.maySend(packet, from: instance) {
      require(packet.sourceStation == station, "sent from another station")
      if let owner = owner(packet.source, packet.transport, packet.sourcePort, packet, claims) {
        require(owner == instance, "\(packet) is sent by \(instance), and is of \(owner)")
      }
    }
  } catch {
    _ = error.description
  }
}

private typealias Owned = (instance: Int, claim: Claim)

/// A few claims of four instances, to a few addresses and ports, so that they meet.
private func claims(_ input: inout FuzzInput) -> [Owned] {
  (0..<Int(input.number(UInt8.self) & 7)).map { _ in
    let kind = input.number(UInt8.self)
    let number = input.number(UInt8.self)
    let instance = Int(kind >> 6)
    let address =
      kind & 32 == 0
      ? NetworkAddress(ipv4: 0x0a00_0000 | UInt32(number & 3))
      : NetworkAddress(ipv6High: 0xfd00 << 48, low: UInt64(number & 3))
    let first = UInt16(number >> 2) + 1
    switch kind & 3 {
    case 0: return (instance, .address(address))
    case 1: return (instance, .ports(address, kind & 4 == 0 ? .tcp : .udp, first...first + 8))
    case 2: return (instance, .group(NetworkAddress(ipv4: 0xe000_0000 | UInt32(number & 3))))
    default: return (instance, .rest)
    }
  }
}

/// Who a whole packet of TCP or UDP to one address is for; nil for any other.
private func expected(_ packet: PacketHeader, _ claims: [Owned]) -> UInt64? {
  guard packet.kind == .ipv4 || packet.kind == .ipv6, !packet.destination.isMulticast else {
    return nil
  }
  guard
    let owner = owner(
      packet.destination, packet.transport, packet.destinationPort, packet, claims)
  else { return nil }
  return owner < 0 ? 0 : 1 << UInt64(owner)
}

/// The owner of an address and a port, -1 for nobody; nil where ports do not decide.
private func owner(
  _ address: NetworkAddress, _ transport: UInt8, _ port: UInt16, _ packet: PacketHeader,
  _ claims: [Owned]
) -> Int? {
  guard packet.kind == .ipv4 || packet.kind == .ipv6, packet.message == .none,
    packet.fragment == .none, transport == 6 || transport == 17, !address.isMulticast
  else { return nil }
  for (instance, claim) in claims {
    if case .ports(address, let kind, let ports) = claim, kind.rawValue == transport,
      ports.contains(port)
    {
      return instance
    }
  }
  if let whole = claims.first(where: { $0.claim == .address(address) }) { return whole.instance }
  return claims.first { $0.claim == .rest }?.instance ?? -1
}
