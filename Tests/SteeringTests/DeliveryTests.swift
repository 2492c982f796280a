import Testing

@testable import Steering

/// What is looked up in while a table lives.
struct Delivery: ~Copyable {
  let table: DeliveryTable

  init(_ claims: [(Int, String)], attached: UInt64? = nil) throws {
    let parsed = try claims.map { (instance: $0.0, claim: try #require(Claim($0.1))) }
    table = try DeliveryTable(
      station: Frames.station, claims: parsed,
      attached: attached ?? parsed.reduce(0) { $0 | 1 << UInt64($1.instance) })
  }

  func header(_ frame: [UInt8]) -> PacketHeader {
    frame.withUnsafeBytes {
      // A copy of exactly its size, so that a sanitizer sees a read behind the end.
      let copy = UnsafeMutableRawPointer.allocate(byteCount: max(1, $0.count), alignment: 1)
      defer { copy.deallocate() }
      if let start = $0.baseAddress { copy.copyMemory(from: start, byteCount: $0.count) }
      return PacketHeader(frame: copy, byteCount: $0.count)
    }
  }

  /// The instances that get a frame, or the reason why nobody does.
  func who(_ frame: [UInt8]) -> String {
    var reason = DropReason.unclaimed
    let set = table.rules.recipients(of: header(frame), &reason)
    return set == 0
      ? "\(reason)"
      : (0..<64).filter { set >> UInt64($0) & 1 != 0 }.map(String.init).joined(separator: ",")
  }

  func maySend(_ frame: [UInt8], _ instance: Int) -> Bool {
    table.rules.maySend(header(frame), from: instance)
  }
}

@Suite struct DeliveryTests {
  private let one: UInt32 = 0x0a00_0001
  private let two: UInt32 = 0x0a00_0002
  private let three: UInt32 = 0x0a00_0003
  private let far: UInt32 = 0x0a00_00fe
  private let six: (UInt64, UInt64) = (0x2001_0db8 << 32, 6)
  private let far6: (UInt64, UInt64) = (0x2001_0db8 << 32, 0xfe)
  private let allNodes: (UInt64, UInt64) = (0xff02 << 48, 1)

  private func delivery(rest: Bool = true) throws -> Delivery {
    try Delivery(
      [
        (0, "ipv4:10.0.0.1"), (1, "ipv4:10.0.0.2/tcp/80"), (2, "ipv4:10.0.0.2/udp/5000-5999"),
        (1, "ipv4:10.0.0.1/tcp/443"), (2, "group:224.0.0.251"), (0, "group:224.0.0.251"),
        (1, "ipv6:2001:db8::6"), (1, "group:ff02::fb"),
      ] + (rest ? [(3, "rest")] : []), attached: 0b1111)
  }

  private func v4(_ to: UInt32, _ transport: UInt8, _ rest: [UInt8], fragment: UInt16 = 0)
    -> [UInt8]
  {
    Frames.ethernet(
      type: 0x0800, Frames.ipv4(far, to, transport, fragment: fragment, rest))
  }

  private func v6(_ to: (UInt64, UInt64), _ next: UInt8, _ rest: [UInt8]) -> [UInt8] {
    Frames.ethernet(
      to: to.0 >> 56 == 0xff ? 0x3333_0000_0001 : Frames.station, type: 0x86dd,
      Frames.ipv6(far6, to, next, rest))
  }

  @Test func portsComeBeforeTheAddressAndTheRestLast() throws {
    let delivery = try delivery()
    #expect(delivery.who(v4(one, 6, Frames.tcp(9, 80))) == "0")
    #expect(delivery.who(v4(one, 6, Frames.tcp(9, 443))) == "1")
    #expect(delivery.who(v4(one, 17, Frames.udp(9, 443))) == "0")
    #expect(delivery.who(v4(two, 6, Frames.tcp(9, 80))) == "1")
    #expect(delivery.who(v4(two, 17, Frames.udp(9, 5000))) == "2")
    #expect(delivery.who(v4(two, 17, Frames.udp(9, 5999))) == "2")
    #expect(delivery.who(v4(two, 17, Frames.udp(9, 6000))) == "3")
    #expect(delivery.who(v4(two, 17, Frames.udp(9, 4999))) == "3")
    #expect(delivery.who(v4(three, 6, Frames.tcp(9, 80))) == "3")
    let alone = try self.delivery(rest: false)
    #expect(alone.who(v4(two, 17, Frames.udp(9, 6000))) == "unclaimed")
    #expect(alone.who(v4(three, 6, Frames.tcp(9, 80))) == "unclaimed")
  }

  @Test func oneAnswersForAnAddressAndAllHearAnswers() throws {
    let delivery = try delivery()
    func arp(_ operation: UInt16, _ to: UInt32, _ station: UInt64) -> String {
      delivery.who(
        Frames.ethernet(to: station, type: 0x0806, Frames.arp(operation, from: far, to: to)))
    }
    #expect(arp(1, one, Frames.broadcast) == "0")
    #expect(arp(1, two, Frames.broadcast) == "1")
    #expect(arp(1, three, Frames.broadcast) == "3")
    #expect(arp(2, one, Frames.station) == "0,1")
    #expect(arp(2, two, Frames.station) == "1,2")
    #expect(delivery.who(v4(two, 1, Frames.icmp(8))) == "1")
    #expect(delivery.who(v4(two, 1, Frames.icmp(0))) == "1,2")
    #expect(delivery.who(v4(two, 47, [0, 0, 0, 0])) == "1")
    // Fragments: the first one too, so that all come together.
    #expect(delivery.who(v4(one, 6, Frames.tcp(9, 443), fragment: 0x2000)) == "0")
    #expect(delivery.who(v4(one, 6, [1, 2], fragment: 5)) == "0")
    #expect(delivery.who(v4(two, 17, [1, 2], fragment: 0x2005)) == "1")
    // Neighbour discovery asks at a group, and names whom.
    let solicitation = Frames.icmp(135) + Frames.bytes(six.0, 8) + Frames.bytes(six.1, 8)
    #expect(delivery.who(v6((0xff02 << 48, 0x1_ff00_0006), 58, solicitation)) == "1")
    #expect(delivery.who(v6(six, 58, solicitation)) == "1")
  }

  @Test func errorsGoToWhoSentThePacketInside() throws {
    let delivery = try delivery()
    func error(_ from: UInt32, _ transport: UInt8, _ ports: [UInt8], options: Int = 0) -> String {
      let inner = Frames.ipv4(from, far, transport, options: options, ports)
      return delivery.who(v4(from, 1, Frames.icmp(3) + inner))
    }
    #expect(error(two, 17, Frames.udp(5001, 9)) == "2")
    #expect(error(two, 17, Frames.udp(5001, 9), options: 3) == "2")
    #expect(error(two, 6, Frames.tcp(80, 9)) == "1")
    #expect(error(two, 6, Frames.tcp(81, 9)) == "1")
    #expect(error(one, 6, Frames.tcp(443, 9)) == "1")
    #expect(error(one, 6, Frames.tcp(444, 9)) == "0")
    let inner = Frames.ipv6(six, far6, 17, Frames.udp(7, 9))
    #expect(delivery.who(v6(six, 58, Frames.icmp(1) + inner)) == "1")
  }

  @Test func groupsGoToTheirMembersAndAllNodesToAll() throws {
    let delivery = try delivery()
    func group(_ to: UInt32) -> String {
      delivery.who(
        Frames.ethernet(
          to: 0x0100_5e00_0001, type: 0x0800, Frames.ipv4(far, to, 17, Frames.udp(1, 2))))
    }
    #expect(group(0xe000_00fb) == "0,2")
    #expect(group(0xe000_0001) == "0,1,2,3")
    #expect(group(0xe000_0005) == "3")
    #expect(delivery.who(v6(allNodes, 17, Frames.udp(1, 2))) == "0,1,2,3")
    #expect(delivery.who(v6((0xff02 << 48, 0xfb), 17, Frames.udp(1, 2))) == "1")
    #expect(delivery.who(v6((0xff02 << 48, 0xfc), 17, Frames.udp(1, 2))) == "3")
    #expect(delivery.who(v6(six, 58, Frames.icmp(134))) == "0,1,2,3")
    let broadcast = Frames.ipv4(far, 0xffff_ffff, 17, Frames.udp(68, 67))
    #expect(delivery.who(Frames.ethernet(to: Frames.broadcast, type: 0x0800, broadcast)) == "3")
  }

  @Test func whatIsForeignTaggedOrBrokenIsNamed() throws {
    let delivery = try delivery()
    let packet = Frames.ipv4(far, one, 6, Frames.tcp(9, 80))
    #expect(delivery.who(Frames.ethernet(to: 0x0200_0000_0009, type: 0x0800, packet)) == "foreign")
    #expect(delivery.who(Frames.ethernet(type: 0x8100, [0, 5, 8, 0] + packet)) == "3")
    #expect(delivery.who(Frames.ethernet(type: 0x88cc, [1])) == "3")
    let whole = Frames.ethernet(type: 0x0800, packet)
    for count in 0..<whole.count {
      #expect(delivery.who(Array(whole[..<count])) == "malformed", "\(count)")
    }
    #expect(delivery.who(whole) == "0")
    for (offset, value) in [(14, 0x55), (14, 0x44), (14, 0x4f), (16, 0), (46, 0x40)]
      as [(Int, UInt8)]
    {
      var bad = whole
      bad[offset] = value
      if offset == 16 { bad[17] = 19 }
      #expect(delivery.who(bad) == "malformed", "\(offset)")
    }
    let wholeARP = Frames.ethernet(type: 0x0806, Frames.arp(1, from: far, to: one))
    for count in 14..<wholeARP.count {
      #expect(delivery.who(Array(wholeARP[..<count])) == "malformed")
    }
  }

  @Test func extensionHeadersAreWalkedAsFarAsTheyAreCopied() throws {
    let delivery = try delivery()
    let udp = Frames.udp(9, 10)
    let options: [UInt8] = [17, 0, 1, 4, 0, 0, 0, 0]
    #expect(delivery.who(v6(six, 60, options + udp)) == "1")
    // Each names the next: more of them than are looked at.
    let chain = [UInt8]([60, 0, 1, 4, 0, 0, 0, 0])
    let endless = (0..<40).flatMap { _ in chain }
    #expect(delivery.who(v6(six, 60, endless + udp)) == "malformed")
    #expect(delivery.who(v6(six, 60, [17, 255, 0, 0, 0, 0, 0, 0] + udp)) == "malformed")
    let fragment: [UInt8] = [17, 0, 0, 9, 0, 0, 0, 1]
    #expect(delivery.who(v6(six, 44, fragment + [1, 2, 3])) == "1")
    #expect(delivery.who(v6(six, 44, [44, 0, 0, 1, 0, 0, 0, 1] + fragment + udp)) == "malformed")
  }

  @Test func aClaimThatIsHeldIsRefusedByName() throws {
    for (first, second) in [
      ("ipv4:10.0.0.1", "ipv4:10.0.0.1"), ("rest", "rest"),
      ("ipv4:10.0.0.1/tcp/80-90", "ipv4:10.0.0.1/tcp/90-99"),
      ("ipv6:fe80::1/udp/5", "ipv6:fe80::1/udp/1-9"),
    ] {
      let claims = try [first, second].map { try #require(Claim($0)) }
      var found: ClaimConflict?
      do {
        _ = try DeliveryTable(
          station: 1, claims: [(instance: 5, claim: claims[0]), (instance: 9, claim: claims[1])],
          attached: 0)
      } catch {
        found = error
      }
      #expect(found == ClaimConflict(claim: claims[1], held: claims[0], owner: 5))
    }
    _ = try Delivery([
      (5, "ipv4:10.0.0.1/tcp/80"), (9, "ipv4:10.0.0.1/udp/80"), (9, "ipv4:10.0.0.1/tcp/81"),
      (3, "ipv4:10.0.0.1"), (3, "group:224.0.0.9"), (4, "group:224.0.0.9"),
    ])
  }

  @Test func onlyFromItsOwnAddressesAndPorts() throws {
    let delivery = try delivery()
    func from(
      _ source: UInt32, _ transport: UInt8, _ rest: [UInt8], station: UInt64 = Frames.station,
      fragment: UInt16 = 0
    )
      -> String
    {
      let frame = Frames.ethernet(
        to: Frames.peer, from: station, type: 0x0800,
        Frames.ipv4(source, far, transport, fragment: fragment, rest))
      return (0..<5).filter { delivery.maySend(frame, $0) }.map(String.init).joined(separator: ",")
    }
    #expect(from(one, 6, Frames.tcp(80, 1)) == "0")
    #expect(from(one, 6, Frames.tcp(443, 1)) == "1")
    #expect(from(two, 6, Frames.tcp(80, 1)) == "1")
    #expect(from(two, 17, Frames.udp(5500, 1)) == "2")
    #expect(from(two, 17, Frames.udp(6000, 1)) == "3")
    #expect(from(three, 17, Frames.udp(6000, 1)) == "3")
    #expect(from(two, 1, Frames.icmp(8)) == "1,2")
    #expect(from(two, 47, [0, 0]) == "1")
    #expect(from(two, 17, [0, 0], fragment: 9) == "1,2")
    #expect(from(one, 6, Frames.tcp(443, 1), fragment: 0x2000) == "1")
    #expect(from(0xe000_0001, 17, Frames.udp(1, 1)) == "")
    #expect(from(one, 6, Frames.tcp(80, 1), station: Frames.peer) == "")

    func other(_ frame: [UInt8]) -> String {
      (0..<5).filter { delivery.maySend(frame, $0) }.map(String.init).joined(separator: ",")
    }
    func arp(_ source: UInt32, _ station: UInt64) -> String {
      other(
        Frames.ethernet(
          to: Frames.broadcast, from: Frames.station, type: 0x0806,
          Frames.arp(1, from: source, to: far, station: station)))
    }
    #expect(arp(one, Frames.station) == "0,1")
    #expect(arp(two, Frames.station) == "1,2")
    #expect(arp(three, Frames.station) == "3")
    #expect(arp(0, Frames.station) == "0,1,2,3,4")
    #expect(arp(one, Frames.peer) == "")
    func ours6(_ source: (UInt64, UInt64), _ next: UInt8, _ rest: [UInt8]) -> String {
      other(
        Frames.ethernet(
          to: 0x3333_0000_0001, from: Frames.station, type: 0x86dd,
          Frames.ipv6(source, far6, next, rest)))
    }
    let target = Frames.bytes(six.0, 8) + Frames.bytes(six.1, 8)
    let gateway = Frames.bytes(far6.0, 8) + Frames.bytes(far6.1, 8)
    #expect(ours6((0, 0), 58, Frames.icmp(135) + target) == "0,1,2,3,4")
    #expect(ours6((0, 0), 17, Frames.udp(1, 2)) == "")
    #expect(ours6(six, 17, Frames.udp(1, 2)) == "1")
    #expect(ours6(six, 58, Frames.icmp(136) + target) == "1")
    #expect(ours6(six, 58, Frames.icmp(136) + gateway) == "")
    #expect(other(Frames.ethernet(from: Frames.station, type: 0x88cc, [1])) == "3")
    #expect(other(Frames.ethernet(from: Frames.station, type: 0x8100, [0, 1, 8, 0])) == "")
  }
}
