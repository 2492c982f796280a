import Channel
import Driver
import Memory
import Testing

@testable import Host

/// Aggregates between a host that is shared and its instances.
@Suite struct SharedAggregateTests {
  private func outgoing(_ index: Int, _ number: Int) -> [UInt8] {
    SharedFrames.udp(
      from: SharedFrames.address(index), to: SharedFrames.far, number: number, isOutgoing: true)
  }

  /// Puts frames one behind the other into the peer's burst, from a segment on, all with one tag.
  private func append(_ frames: [[UInt8]], to peer: SharedPeer, segment: Int, tag: UInt16) {
    for (place, frame) in frames.enumerated() {
      let unit = SharedPeer.firstUnit + 2 * (segment + place)
      (peer.arena.address + unit * 1024).copyMemory(from: frame, byteCount: frame.count)
      peer.burst.append(
        Descriptor(segment: UInt32(unit), length: UInt32(frame.count), tag: tag))
    }
  }

  @Test func whatIsSentAsOneIsCompletedOnceWhateverBecomesOfItsPackets() throws {
    let bench = try SharedBench()
    let peers = try (0..<2).map { try bench.attach($0) }
    // Of each third aggregate the first packet, of each other third the last has another's address.
    var sent: [[UInt8]] = []
    for number in 0..<150 {
      let peer = peers[number % 2]
      let count = 1 + number % 7
      var frames = (0..<count).map { outgoing(peer.index, number * 8 + $0) }
      let foreign = number % 3 == 0 ? 0 : number % 3 == 1 ? count - 1 : -1
      for (place, frame) in frames.enumerated() where place != foreign { sent.append(frame) }
      if foreign >= 0 { frames[foreign] = outgoing(1 - peer.index, 9999) }
      append(frames, to: peer, segment: number % 64 * 8, tag: UInt16(number))
      peer.burst.joinPackets()
      peer.send([Descriptor]())
      try bench.turns(number % 5 == 0 ? 4 : 1)
      for peer in peers { try peer.take() }
    }
    try bench.turns(100)
    for peer in peers {
      try peer.take()
      #expect(peer.completed.sorted() == (0..<150).filter { $0 % 2 == peer.index })
    }
    let out = bench.wire.sent.map(\.frame)
    #expect(out.count == sent.count && Set(out) == Set(sent))
    let counters = bench.counters
    #expect(
      (counters["tx_i0_refused_source"] ?? 0) + (counters["tx_i1_refused_source"] ?? 0) == 100)
    try bench.turns(20)
    #expect(bench.isConserved(peers) && bench.inFlight == 0)
    #expect(bench.device.iommu.faults.isEmpty)
  }

  @Test func aTagIsItsAgainAfterTheLastPacketOnly() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    append((0..<8).map { outgoing(0, $0) }, to: peer, segment: 0, tag: 5)
    peer.burst.joinPackets()
    peer.send([Descriptor]())
    // The device does nothing yet.
    for _ in 0..<200 { bench.stepPath() }
    try peer.take()
    #expect(bench.inFlight == 8 && peer.completed.isEmpty)
    try bench.turns(20)
    try peer.take()
    #expect(bench.inFlight == 0 && peer.completed == [5])
    // The same tag again.
    append((8..<11).map { outgoing(0, $0) }, to: peer, segment: 0, tag: 5)
    peer.burst.joinPackets()
    peer.send([Descriptor]())
    try bench.turns(20)
    try peer.take()
    #expect(peer.completed == [5, 5])
    #expect(bench.wire.sent.map { SharedFrames.number($0.frame) } == Array(0..<11))
  }

  @Test func aReceivedSegmentLeavesAsPartOfAnAggregate() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    bench.wire.arriving.append(
      SharedFrames.udp(from: SharedFrames.far, to: SharedFrames.address(0), number: 1))
    try bench.turns(4)
    try peer.end.receive.pop(into: &peer.burst)
    let received = peer.burst[0]
    peer.burst.removeAll()
    let frame = outgoing(0, 77)
    (peer.arena.address + Int(received.position)).copyMemory(
      from: frame, byteCount: frame.count)
    var slots = Burst(capacity: 4)
    slots.append(
      Descriptor(
        segment: received.segment, offset: received.offset, length: UInt32(frame.count), tag: 9))
    append([outgoing(0, 78)], to: peer, segment: 3, tag: 9)
    slots.append(peer.burst[0])
    peer.burst.removeAll()
    slots.joinPackets()
    peer.send([slots[0], slots[1]])
    try bench.turns(20)
    try peer.take()
    #expect(peer.completed == [9])
    #expect(bench.wire.sent.map { SharedFrames.number($0.frame) } == [77, 78])
    #expect(bench.counters["tx_i0_sent_in_place"] == 1)
  }

  @Test(arguments: [false, true])
  func whatComesTogetherComesAsItIsWanted(_ wantsAggregates: Bool) throws {
    let bench = try SharedBench()
    let peers = try (0..<2).map { try bench.attach($0) }
    peers[1].end.wantAggregates(wantsAggregates)
    try bench.turns(4)
    for number in 0..<12 {
      bench.wire.arriving.append(
        SharedFrames.udp(
          from: SharedFrames.far, to: SharedFrames.address(number % 2), number: number))
    }
    while bench.function.step() {}
    try bench.turns(4)
    var units: [Int] = []
    for peer in peers {
      try peer.end.receive.pop(into: &peer.burst)
      let slots = peer.burst.count
      units.append(
        (0..<slots).count { !peer.burst[$0].flags.contains(.more) })
      let packets = try peer.burst.openAggregates()
      #expect(slots == 6 && packets == 6)
      peer.end.free.push(&peer.burst)
      peer.burst.removeAll()
    }
    #expect(units == [6, wantsAggregates ? 1 : 6])
    try bench.turns(10)
    #expect(bench.isConserved(peers))
  }
}
