import Testing

@testable import Steering

/// The rules once more, as slowly and plainly as they can be written, from the claims themselves.
struct PlainRules {
  let claims: [(instance: Int, claim: Claim)]
  let attached: Set<Int>

  var rest: Set<Int> { Set(claims.filter { $0.claim == .rest }.map(\.instance)) }

  func whole(_ address: NetworkAddress) -> Int? {
    claims.first { $0.claim == .address(address) }?.instance
  }

  func ports(_ address: NetworkAddress) -> [(Int, Claim.Transport, ClosedRange<UInt16>)] {
    claims.compactMap {
      if case .ports(address, let transport, let ports) = $0.claim {
        ($0.instance, transport, ports)
      } else {
        nil
      }
    }
  }

  func claimants(_ address: NetworkAddress) -> Set<Int> {
    Set(ports(address).map(\.0) + (whole(address).map { [$0] } ?? []))
  }

  func responsible(_ address: NetworkAddress) -> Set<Int> {
    if let whole = whole(address) { return [whole] }
    return ports(address).first.map { [$0.0] } ?? rest
  }

  func owner(_ address: NetworkAddress, _ transport: UInt8, _ port: UInt16) -> Set<Int> {
    for (instance, kind, ports) in ports(address)
    where kind.rawValue == transport && ports.contains(port) {
      return [instance]
    }
    return whole(address).map { [$0] } ?? rest
  }

  func members(_ group: NetworkAddress) -> Set<Int> {
    let members = Set(claims.filter { $0.claim == .group(group) }.map(\.instance))
    return members.isEmpty ? rest : members
  }
}

@Suite struct RandomDeliveryTests {

  private func address(_ number: Int) -> NetworkAddress {
    number % 2 == 0
      ? NetworkAddress(ipv4: 0x0a00_0000 + UInt32(number))
      : NetworkAddress(ipv6High: 0x2001_0db8 << 32, low: UInt64(number))
  }

  private func group(_ number: Int) -> NetworkAddress {
    number % 2 == 0
      ? NetworkAddress(ipv4: 0xe000_0100 + UInt32(number))
      : NetworkAddress(ipv6High: 0xff02 << 48, low: 0x100 + UInt64(number))
  }

  private func someClaim() -> Claim {
    let first = UInt16.random(in: 1...200)
    return switch Int.random(in: 0..<9) {
    case 0: .rest
    case 1, 2: .group(group(.random(in: 0..<12)))
    case 3, 4: .address(address(.random(in: 0..<24)))
    default:
      .ports(
        address(.random(in: 0..<24)), Bool.random() ? .tcp : .udp,
        first...(first + .random(in: 0...20)))
    }
  }

  /// What a random packet is, and its bytes.
  private func frame(_ destination: NetworkAddress, _ transport: UInt8, _ port: UInt16) -> [UInt8] {
    let rest = transport == 6 ? Frames.tcp(9, port) : Frames.udp(9, port)
    return destination.isIPv6
      ? Frames.ethernet(
        type: 0x86dd,
        Frames.ipv6((0xfe80 << 48, 1), (destination.high, destination.low), transport, rest))
      : Frames.ethernet(
        type: 0x0800,
        Frames.ipv4(0x0a00_00fe, UInt32(truncatingIfNeeded: destination.low), transport, rest))
  }

  @Test func theTableSaysWhatThePlainRulesSay() throws {
    for round in 0..<60 {
      var claims: [(instance: Int, claim: Claim)] = []
      for _ in 0..<(round * 5) {
        let new = (instance: Int.random(in: 0..<64), claim: someClaim())
        if (try? DeliveryTable(station: 1, claims: claims + [new], attached: 0)) != nil {
          claims.append(new)
        }
      }
      let plain = PlainRules(claims: claims, attached: Set(0..<64))
      let table = try DeliveryTable(station: Frames.station, claims: claims, attached: .max)
      for _ in 0..<300 {
        let isGroup = Int.random(in: 0..<5) == 0
        let destination = isGroup ? group(.random(in: 0..<14)) : address(.random(in: 0..<26))
        let transport: UInt8 = Bool.random() ? 6 : 17
        let port = UInt16.random(in: 1...240)
        let bytes = frame(destination, transport, port)
        let header = bytes.withUnsafeBytes {
          PacketHeader(frame: $0.baseAddress!, byteCount: $0.count)
        }
        var reason = DropReason.unclaimed
        let set = table.rules.recipients(of: header, &reason)
        let got = Set((0..<64).filter { set >> UInt64($0) & 1 != 0 })
        let wanted =
          isGroup ? plain.members(destination) : plain.owner(destination, transport, port)
        #expect(got == wanted, "\(destination) \(transport) \(port) of \(claims)")
        if isGroup { continue }
        // Who would get the answer may send, and nobody else.
        var answer = bytes
        answer.replaceSubrange(0..<12, with: Frames.bytes(Frames.peer, 6) + bytes[0..<6])
        let address = destination.isIPv6 ? (22..<38, 38..<54) : (26..<30, 30..<34)
        let ports = destination.isIPv6 ? (54..<56, 56..<58) : (34..<36, 36..<38)
        for (first, second) in [address, ports] {
          let (a, b) = (Array(answer[first]), Array(answer[second]))
          answer.replaceSubrange(first, with: b)
          answer.replaceSubrange(second, with: a)
        }
        let sent = answer.withUnsafeBytes {
          PacketHeader(frame: $0.baseAddress!, byteCount: $0.count)
        }
        let senders = Set((0..<64).filter { table.rules.maySend(sent, from: $0) })
        #expect(senders == wanted)
        // A reply to a question of any claimant comes to all of them.
        let claimants = plain.claimants(destination)
        if !destination.isIPv6 {
          let reply = Frames.ethernet(
            type: 0x0806,
            Frames.arp(2, from: 1, to: UInt32(truncatingIfNeeded: destination.low)))
          let header = reply.withUnsafeBytes {
            PacketHeader(frame: $0.baseAddress!, byteCount: $0.count)
          }
          let set = table.rules.recipients(of: header, &reason)
          let got = Set((0..<64).filter { set >> UInt64($0) & 1 != 0 })
          #expect(got == (claimants.isEmpty ? plain.rest : claimants))
        }
      }
    }
  }

  /// Any bytes at all: nothing is read behind the end, and nobody but a claimant or the rest gets them.
  @Test func anyBytesAreSurvived() throws {
    let delivery = try Delivery([(0, "ipv4:10.0.0.1"), (1, "ipv6:2001:db8::6/tcp/80"), (2, "rest")])
    let seeds = [
      frame(NetworkAddress(ipv4: 0x0a00_0001), 6, 80),
      frame(NetworkAddress(ipv6High: 0x2001_0db8 << 32, low: 6), 6, 80),
      Frames.ethernet(type: 0x0806, Frames.arp(1, from: 1, to: 0x0a00_0001)),
    ]
    for _ in 0..<20_000 {
      var bytes =
        seeds.randomElement()! + (0..<Int.random(in: 0..<100)).map { _ in .random(in: 0...255) }
      for _ in 0..<Int.random(in: 0..<6) {
        bytes[.random(in: bytes.indices)] = .random(in: 0...255)
      }
      bytes.removeLast(.random(in: 0...bytes.count))
      _ = delivery.who(bytes)
      for instance in 0..<3 { _ = delivery.maySend(bytes, instance) }
    }
  }
}
