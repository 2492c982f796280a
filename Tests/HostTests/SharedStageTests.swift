import CLinux
import Channel
import Glibc
import Memory
import Steering
import Testing

@testable import Host

/// Packets through stages, as the host sees it.
@Suite struct SharedStageTests {
  private func incoming(_ number: Int) -> [UInt8] {
    SharedFrames.udp(from: SharedFrames.far, to: SharedFrames.address(0), number: number)
  }
  private func outgoing(_ number: Int, payload: Int = 60) -> [UInt8] {
    SharedFrames.udp(
      from: SharedFrames.address(0), to: SharedFrames.far, number: number, payload: payload,
      isOutgoing: true)
  }

  private func start(
    _ bench: SharedBench, place: Int = 0, name: String = "one", packets: String = "all",
    fails: String = "closed"
  ) throws -> PlayedStage {
    let stage = try PlayedStage(bench)
    bench.tell(
      "stage place=\(place) name=\(name) receive=\(packets) transmit=\(packets) fails=\(fails) slots=4096",
      [stage.memory.descriptor, stage.hostEnd, stage.ring])
    #expect(try bench.waits(for: "staged place=\(place)"))
    return stage
  }

  private func numbers(_ peer: SharedPeer) throws -> [Int] {
    try peer.take()
    defer { peer.received = [] }
    return peer.received.map(SharedFrames.number)
  }

  @Test func packetsGoThroughBothWays() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    let stage = try start(bench)
    bench.wire.arriving = (1...3).map(incoming)
    try bench.turns(4)
    #expect(try numbers(peer) == [])
    try stage.take()
    #expect(stage.packets.map(stage.frame) == (1...3).map(incoming))
    #expect(stage.packets.allSatisfy { $0.way == .receive && $0.unseenBytes == 0 })
    #expect(stage.spares.count == StagedPacket.spares)
    stage.give(stage.packets)
    try bench.turns(3)
    #expect(try numbers(peer) == [1, 2, 3])

    // What is sent keeps its payload where it is: the stage sees the headers only.
    stage.packets = []
    peer.send(outgoing(4, payload: 400), tag: 9)
    try bench.turns(3)
    #expect(bench.wire.sent.isEmpty)
    try stage.take()
    let head = try #require(stage.packets.first)
    #expect(head.way == .transmit && Int(head.byteCount) == PacketHeader.maximumBytes)
    #expect(Int(head.byteCount + head.unseenBytes) == outgoing(4, payload: 400).count)
    stage.give(head)
    try bench.turns(4)
    #expect(bench.wire.sent.map(\.frame) == [outgoing(4, payload: 400)])
    try peer.take()
    #expect(peer.completed == [9])
    #expect(bench.counters["stage_one_in_packets"] == 4)
    #expect(bench.counters["stage_one_out_packets"] == 4)
  }

  @Test func aStageChangesDropsAndTurns() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    let stage = try start(bench)
    bench.wire.arriving = (1...3).map(incoming)
    try bench.turns(4)
    try stage.take()
    // The first becomes longer in front, the second is dropped, the third goes back to where it came from.
    var first = stage.packets[0]
    let longer = incoming(1)[..<12] + [0x81, 0, 0, 42] + incoming(1)[12...]
    #expect(first.roomBefore >= 4)
    first.position -= 4
    stage.write(Array(longer), &first)
    stage.give(first)
    stage.give(stage.packets[1], way: StagedPacket.Way.none)
    var third = stage.packets[2]
    stage.write(outgoing(3), &third)
    stage.give(third, way: .transmit)
    try bench.turns(6)
    try peer.take()
    // A tagged frame is nobody's by claims.
    #expect(peer.received.isEmpty)
    #expect(bench.counters["rx_tagged_packets"] == 1)
    #expect(bench.wire.sent.map(\.frame) == [outgoing(3)])
    #expect(bench.counters["stage_one_dropped"] == 1)
    bench.tell("stage-end place=0")
    #expect(try bench.waits(for: "unstaged place=0"))
    try bench.turns(3)
    #expect(bench.isConserved([peer]))
  }

  /// What an instance sends can come back to it, and a stage can send packets of its own, both ways.
  @Test func packetsOfAStagesOwn() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    let stage = try start(bench)
    try bench.turns(2)
    try stage.take()
    var up = stage.spares[0]
    stage.write(incoming(7), &up)
    stage.give(up, way: .receive)
    var down = stage.spares[1]
    stage.write(outgoing(8), &down)
    stage.give(down, way: .transmit)
    try bench.turns(5)
    #expect(try numbers(peer) == [7])
    #expect(bench.wire.sent.map(\.frame) == [outgoing(8)])
    #expect(bench.counters["stage_one_made_packets"] == 2)
    // The memory comes back, and is lent again.
    try stage.take()
    #expect(stage.spares.count == StagedPacket.spares + 2)

    peer.send(outgoing(9), tag: 3)
    try bench.turns(3)
    try stage.take()
    var turned = try #require(stage.packets.first)
    stage.write(incoming(9), &turned)
    stage.give(turned, way: .receive)
    try bench.turns(4)
    #expect(try numbers(peer) == [9])
    #expect(peer.completed == [3])
    bench.tell("stage-end place=0")
    #expect(try bench.waits(for: "unstaged place=0"))
    try bench.turns(3)
    #expect(bench.isConserved([peer]) && bench.inFlight == 0)
  }

  @Test func severalStandInOrder() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    let near = try start(bench, place: 0, name: "near")
    let far = try start(bench, place: 1, name: "far")
    bench.wire.arriving = [incoming(1)]
    try bench.turns(4)
    try far.take()
    #expect(far.packets.isEmpty)
    try near.pass()
    try bench.turns(2)
    try far.pass()
    try bench.turns(2)
    #expect(try numbers(peer) == [1])
    peer.send(outgoing(2))
    try bench.turns(3)
    try near.take()
    #expect(near.packets.isEmpty)
    try far.pass()
    try bench.turns(2)
    try near.pass()
    try bench.turns(3)
    #expect(bench.wire.sent.map(\.frame) == [outgoing(2)])
    // What the nearer one turns back has been through neither.
    bench.wire.arriving = [incoming(3)]
    try bench.turns(4)
    try near.take()
    near.give(try #require(near.packets.last), way: .transmit)
    try bench.turns(4)
    #expect(bench.wire.sent.count == 2)
  }

  /// What one stage makes is a packet like others for the next, which is lent nothing for it.
  @Test func whatOneMakesGoesThroughTheNext() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    let near = try start(bench, place: 0, name: "near")
    let far = try start(bench, place: 1, name: "far")
    try bench.turns(2)
    try far.take()
    for number in 1...20 {
      try near.take()
      var made = near.spares.removeFirst()
      near.write(incoming(number), &made)
      near.give(made, way: .receive)
      try bench.turns(2)
      try far.pass()
      try bench.turns(2)
    }
    #expect(try numbers(peer) == Array(1...20))
    #expect(far.spares.count == StagedPacket.spares)
    let counters = bench.counters
    #expect(counters["stage_near_made_packets"] == 20 && counters["stage_near_out_packets"] == 0)
    #expect(counters["stage_far_in_packets"] == 20 && counters["stage_far_out_packets"] == 20)
    #expect(counters["stage_far_made_packets"] == 0 && counters["stage_far_held_packets"] == 0)
  }

  @Test func rulesChooseWhatGoesThrough() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    let stage = try start(bench, packets: "rules")
    let text = "rule some source=10.0.0.254 destination-port=9 stage=one\n"
    let arena = try Arena(byteCount: 4096, pageSize: .ordinary, name: "rules")
    let counters = try Arena(byteCount: 4096, pageSize: .ordinary, name: "counters")
    arena.address.copyMemory(from: Array(text.utf8), byteCount: text.utf8.count)
    bench.tell(
      "rules generation=1 bytes=\(text.utf8.count) counters=4096",
      [arena.descriptor, counters.descriptor])
    #expect(try bench.waits(for: "ruled generation=1"))
    bench.wire.arriving = [
      incoming(1),
      SharedFrames.udp(from: [10, 0, 0, 253], to: SharedFrames.address(0), number: 2),
    ]
    try bench.turns(4)
    #expect(try numbers(peer) == [2])
    try stage.pass()
    try bench.turns(3)
    // The rule is looked up once more, and not followed through the stage again.
    #expect(try numbers(peer) == [1])
  }

  @Test(arguments: ["open", "closed"]) func withoutItsProcess(_ fails: String) throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    let stage = try start(bench, fails: fails)
    bench.wire.arriving = [incoming(1)]
    peer.send(outgoing(1), tag: 5)
    try bench.turns(4)
    try stage.take()
    #expect(stage.packets.count == 2)
    bench.tell("stage-end place=0")
    #expect(try bench.waits(for: "unstaged place=0"))
    // What it had is lost, and its memory is not.
    try peer.take()
    #expect(peer.completed == [5] && peer.received.isEmpty)
    #expect(bench.counters["stage_one_dropped_lost"] == 2)
    #expect(bench.isConserved([peer]))
    bench.wire.arriving = [incoming(2)]
    peer.send(outgoing(2))
    try bench.turns(5)
    #expect(try numbers(peer) == (fails == "open" ? [2] : []))
    #expect(bench.wire.sent.map(\.frame) == (fails == "open" ? [outgoing(2)] : []))
    #expect(
      bench.counters[fails == "open" ? "stage_one_bypassed" : "stage_one_dropped_down"] == 2)
    // Another process takes its place.
    let again = try start(bench, fails: fails)
    bench.wire.arriving = [incoming(3)]
    try bench.turns(4)
    try again.pass()
    try bench.turns(3)
    #expect(try numbers(peer) == [3])
  }

  @Test func whatItMayNotSayEndsIt() throws {
    let lies: [(String, (inout StagedPacket, [StagedPacket]) -> Void)] = [
      ("a number that nobody has", { packet, _ in packet.number = 1000 }),
      ("beyond all numbers", { packet, _ in packet.number = .max }),
      ("before its room", { packet, _ in packet.position -= UInt64(packet.roomBefore) + 1 }),
      ("behind its room", { packet, _ in packet.byteCount += packet.roomBehind + 1 }),
      ("far away", { packet, _ in packet.position = 1 << 42 }),
      ("no Ethernet header", { packet, _ in packet.byteCount = 13 }),
    ]
    for (what, lie) in lies {
      let bench = try SharedBench()
      let peer = try bench.attach(0)
      let stage = try start(bench, fails: "open")
      bench.wire.arriving = [incoming(1)]
      try bench.turns(4)
      try stage.take()
      var packet = try #require(stage.packets.first)
      lie(&packet, stage.spares)
      stage.give(packet)
      #expect(try bench.waits(for: "stage-closed place=0 reason=not_its_segment"), "\(what)")
      #expect(stage.memory.end.isAsked)
      bench.wire.arriving = [incoming(2)]
      try bench.turns(4)
      #expect(try numbers(peer) == [2], "\(what)")
      #expect(bench.isConserved([peer]), "\(what)")
    }
  }

  /// Given back twice, and slots that are no packet.
  @Test func whatIsNoPacketEndsIt() throws {
    for number in 0..<3 {
      let bench = try SharedBench()
      let peer = try bench.attach(0)
      let stage = try start(bench)
      bench.wire.arriving = [incoming(1)]
      try bench.turns(4)
      try stage.take()
      let packet = try #require(stage.packets.first)
      switch number {
      case 0:
        stage.give(packet)
        stage.give(packet)
      case 1:
        stage.burst.append(Descriptor(segment: 1, length: 64))
        stage.give([])
      default:
        stage.memory.bytes.storeBytes(of: 0x7fff_ffff, toByteOffset: 4096 + 128, as: UInt32.self)
      }
      #expect(try bench.waits(for: "stage-closed place=0"), "\(number)")
      #expect(try numbers(peer) == (number == 0 ? [1] : []))
      #expect(bench.isConserved([peer]))
    }
  }

  /// A stage that takes nothing: its ring fills, what does not fit is dropped, and the rest goes on.
  @Test func aStageThatTakesNothing() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    let stage = try start(bench)
    for number in 0..<600 {
      bench.wire.arriving = [incoming(number)]
      try bench.turns(2)
    }
    let counters = bench.counters
    // The host's other segments are with the device, or the stage has all that there are.
    #expect((counters["stage_one_held_packets"] ?? 0) > 400)
    #expect((counters["rx_q0_segments_device"] ?? 0) == 512)
    bench.tell("stage-end place=0")
    #expect(try bench.waits(for: "unstaged place=0"))
    #expect(bench.isConserved([peer]))
    _ = stage
  }

  @Test func metadataIsChecked() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    let stage = try start(bench)
    bench.wire.arriving = [incoming(1)]
    peer.send(outgoing(1), tag: 1)
    try bench.turns(4)
    try stage.take()
    for var packet in stage.packets {
      packet.metadata = Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 4000)
      stage.give(packet)
    }
    try bench.turns(4)
    try peer.take()
    #expect(peer.received.isEmpty && bench.wire.sent.isEmpty && peer.completed == [1])
    #expect(bench.counters["stage_one_dropped_invalid"] == 2)
  }

  /// What the device would have cut has pieces longer than an instance's segments.
  @Test func aLongPieceIsNotTurned() throws {
    let bench = try SharedBench(carriesOffloads: true)
    let peer = try bench.attach(0)
    let stage = try start(bench)
    var frame = outgoing(1, payload: 5000)
    frame[23] = 6
    frame[46] = 0x50
    peer.send(
      frame, tag: 2,
      offload: Offload(
        segmentation: .tcp4, needsChecksum: true, headerLength: 54, segmentSize: 1448,
        checksumStart: 34, checksumOffset: 16))
    try bench.turns(3)
    try stage.take()
    var head = try #require(stage.packets.first)
    #expect(Int(head.byteCount + head.unseenBytes) == frame.count)
    head.metadata = Offload()
    stage.give(head, way: .receive)
    try bench.turns(4)
    try peer.take()
    #expect(peer.received.isEmpty && peer.completed == [2])
    #expect(bench.counters["stage_one_dropped_invalid"] == 1)
  }

  @Test func theHostSleepsAndIsWoken() throws {
    let bench = try SharedBench()
    _ = try bench.attach(0)
    let stage = try start(bench)
    try bench.turns(3)
    try stage.take()
    #expect(bench.maySleep())
    bench.wire.arriving = [incoming(1)]
    try bench.turns(3)
    try stage.pass()
    #expect(!bench.prepareToSleep())
  }

  @Test func theSupervisorIsNotBelieved() throws {
    let bench = try SharedBench()
    let stage = try PlayedStage(bench)
    let descriptors = [stage.memory.descriptor, stage.hostEnd, stage.ring]
    for (text, descriptors) in [
      ("stage place=8 name=x slots=4096", descriptors), ("stage place=0 slots=4096", descriptors),
      ("stage place=0 name=x slots=4095", descriptors),
      ("stage place=0 name=x slots=512", descriptors),
      ("stage place=0 name=x slots=4096", Array(descriptors[..<2])),
      ("stage-end place=0", []), ("stage-end place=-1", []),
    ] {
      bench.tell(text, descriptors)
      #expect(try bench.waits(for: "refused"), "\(text)")
    }
  }
}
