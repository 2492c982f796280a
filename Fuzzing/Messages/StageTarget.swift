import Channel
import FuzzHarness
import Memory
import Stage
import StageKinds

/// Packets through all four stages, both ways. What comes out lies in its room (the bench looks), and checksums that were
/// right are right.
let stages = FuzzTarget("stages") { input in
  var input = input
  let kind = stageKinds[Int(input.number(UInt8.self)) % stageKinds.count]
  var packets: [BenchPacket] = []
  var time: UInt64 = 0
  while !input.isEmpty && packets.count < 24 {
    let flags = input.number(UInt8.self)
    time += UInt64(input.number(UInt16.self)) << (flags & 8 == 0 ? 10 : 26)
    var metadata = Offload()
    if flags & 2 != 0 {
      metadata = Offload(
        segmentation: flags & 4 != 0 ? .tcp4 : .none, needsChecksum: true,
        headerLength: UInt16(input.number(UInt8.self)), segmentSize: 500,
        checksumStart: UInt16(input.number(UInt8.self)),
        checksumOffset: UInt16(input.number(UInt8.self)))
    }
    let seen = flags & 64 == 0 ? Int.max : Int(input.number(UInt8.self))
    var frame = flags & 16 == 0 ? input.bytes(Int(input.number(UInt8.self))) : template(&input)
    if flags & 32 != 0 { PlainSum.complete(&frame) }
    packets.append(
      BenchPacket(
        frame, flags & 1 == 0 ? .receive : .transmit, at: time, metadata: metadata,
        seenBytes: seen))
  }
  let right = packets.allSatisfy { !$0.metadata.needsChecksum && PlainSum.isRight($0.bytes) }
  guard let result = try? kind.test(packets, configuration: configurations[kind.kind] ?? "") else {
    fatalError("\(kind.kind) refuses its configuration")
  }
  require(result.packets.count <= packets.count, "\(kind.kind) made packets")
  require(
    result["rx_packets"] + result["tx_packets"] == UInt64(packets.count),
    "\(kind.kind) has not seen all packets")
  require(result["holding"] == 0, "\(kind.kind) holds packets after its end")
  for packet in result.packets {
    require(
      !packet.metadata.needsChecksum || packets.contains { $0.metadata.needsChecksum },
      "\(kind.kind) asks for a checksum that nobody wanted")
    if right {
      require(PlainSum.isRight(packet.bytes), "\(kind.kind) spoiled a checksum: \(packet.bytes)")
    }
  }
}

private let configurations = [
  "firewall": """
  rule a way=receive protocol=tcp destination-port=80 drop
  rule b source=10.0.0.0/24 mark=3
  rule c vlan=42 fragment=any drop
  rule d ethertype=ipv6 icmp-type=1 drop
  """,
  "nat44": "outside=198.51.100.1 inside=10.0.0.0/24 ports=1-4 flows=5 forward=tcp:80:10.0.0.5:81",
  "vlan": "vlan=42 priority=3", "shaper": "rate=1Mbit/s burst=500B queue=4 way=both",
]

/// A packet of a flow that a NAT has or gives, with what the input says of it: most of it can be translated.
private func template(_ input: inout FuzzInput) -> [UInt8] {
  let choice = input.number(UInt8.self)
  let transport: UInt8 = [6, 17, 1, 1][Int(choice & 3)]
  let ends: [[UInt8]] = [
    [10, 0, 0, 5], [198, 51, 100, 1], [203, 0, 113, choice >> 6], [10, 0, 0, 6],
  ]
  let source = ends[Int(choice >> 2 & 3)]
  let destination = ends[Int(choice >> 4 & 3)]
  func network(
    _ source: [UInt8], _ destination: [UInt8], _ transport: UInt8, _ segment: [UInt8]
  ) -> [UInt8] {
    let length = UInt16(20 + segment.count)
    return [0x45, 0, UInt8(length >> 8), UInt8(length & 0xff), 0, 1, 0, 0, 64, transport, 0, 0]
      + source + destination + segment
  }
  let ports: [UInt8] = [0, input.number() & 7, 0, input.number() & 7]
  var segment: [UInt8] =
    switch transport {
    case 6: ports + [0, 0, 0, 0, 0, 0, 0, 0, 0x50, input.number(), 0, 0, 0, 0, 0, 0]
    case 17: ports + [0, 8, 0, input.number()]
    default: [[8, 0, 3, 11][Int(choice >> 2 & 3)], 0, 0, 0] + ports
    }
  if segment[0] == 3 || segment[0] == 11, transport == 1 {
    let inner = input.bytes(Int(input.number(UInt8.self)) & 63)
    segment += network(destination, source, choice & 128 == 0 ? 6 : 17, ports + inner)
  }
  segment += input.bytes(Int(input.number(UInt8.self)) & 31)
  var frame: [UInt8] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 99]
  if choice & 64 != 0 { frame += [0x81, 0, 0, 42] }
  frame += [8, 0] + network(source, destination, transport, segment)
  // Some bytes are others.
  for _ in 0..<Int(input.number(UInt8.self)) & 3 {
    let place = Int(input.number(UInt8.self))
    if place < frame.count { frame[place] = input.number() }
  }
  return frame
}

/// Checksums of IPv4, TCP, UDP and ICMP behind at most one VLAN tag, computed byte by byte.
private enum PlainSum {
  private static func sum(_ bytes: some Sequence<UInt8>) -> UInt16 {
    var sum: UInt32 = 0
    var isHigh = true
    for byte in bytes {
      sum += isHigh ? UInt32(byte) << 8 : UInt32(byte)
      if sum > 0xffff { sum -= 0xffff }
      isHigh.toggle()
    }
    return UInt16(sum)
  }

  private struct Places {
    var network = 14
    var transport = 0
    var end = 0
    var field: Int?
    var pseudoHeader: [UInt8] = []
    var mayBeMissing = false

    /// nil where it is no IPv4 packet whose lengths fit.
    init?(_ frame: [UInt8]) {
      if frame.count > 18 && frame[12] == 0x81 && frame[13] == 0 { network = 18 }
      guard frame.count >= network + 20, frame[network - 2] == 8, frame[network - 1] == 0,
        frame[network] >> 4 == 4
      else { return nil }
      transport = network + Int(frame[network] & 15) * 4
      end = network + Int(frame[network + 2]) << 8 + Int(frame[network + 3])
      guard transport >= network + 20, end >= transport, end <= frame.count else { return nil }
      if frame[network + 6] & 0x3f != 0 || frame[network + 7] != 0 { return }
      let kind = frame[network + 9]
      guard let offset = [6: 16, 17: 6, 1: 2][kind], end >= transport + offset + 2 else { return }
      field = transport + offset
      mayBeMissing = kind == 17
      if kind == 1 { return }
      let length = end - transport
      pseudoHeader =
        Array(frame[network + 12..<network + 20])
        + [0, kind, UInt8(length >> 8), UInt8(length & 0xff)]
    }
  }

  static func isRight(_ frame: [UInt8]) -> Bool {
    guard let places = Places(frame) else { return true }
    if sum(frame[places.network..<places.transport]) != 0xffff { return false }
    guard let field = places.field else { return true }
    if places.mayBeMissing && frame[field] == 0 && frame[field + 1] == 0 { return true }
    return sum(places.pseudoHeader + frame[places.transport..<places.end]) == 0xffff
  }

  static func complete(_ frame: inout [UInt8]) {
    guard let places = Places(frame) else { return }
    func store(_ sum: UInt16, at place: Int) {
      frame[place] = UInt8(sum >> 8)
      frame[place + 1] = UInt8(sum & 0xff)
    }
    store(0, at: places.network + 10)
    store(~sum(frame[places.network..<places.transport]), at: places.network + 10)
    guard let field = places.field else { return }
    store(0, at: field)
    let total = ~sum(places.pseudoHeader + frame[places.transport..<places.end])
    store(total == 0 && places.mayBeMissing ? 0xffff : total, at: field)
  }
}
