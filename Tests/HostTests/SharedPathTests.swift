import Channel
import Driver
import Glibc
import Memory
import Testing
import VirtioNetDevice

@testable import Host

@Suite struct SharedPathTests {
  private func incoming(_ index: Int, _ number: Int, payload: Int = 60) -> [UInt8] {
    SharedFrames.udp(
      from: SharedFrames.far, to: SharedFrames.address(index), number: number, payload: payload)
  }

  private func outgoing(_ index: Int, _ number: Int, payload: Int = 60) -> [UInt8] {
    SharedFrames.udp(
      from: SharedFrames.address(index), to: SharedFrames.far, number: number, payload: payload,
      isOutgoing: true)
  }

  @Test func eachInstanceGetsItsOwnAndAllThatItSendsGoesOut() throws {
    let bench = try SharedBench()
    let peers = try (0..<3).map { try bench.attach($0) }
    var sent: [[UInt8]] = []
    let rounds = 600
    for number in 0..<rounds {
      let index = number % 3
      let payload = [60, 100, 1400][number / 3 % 3]
      bench.wire.arriving.append(incoming(index, number, payload: payload))
      let frame = outgoing(index, number, payload: payload)
      peers[index].send(frame, segment: number / 3 % 100, tag: number)
      sent.append(frame)
      try bench.turn()
      for peer in peers { try peer.take() }
    }
    try bench.turns(40)
    for peer in peers { try peer.take() }
    for peer in peers {
      let numbers = (0..<rounds).filter { $0 % 3 == peer.index }
      #expect(peer.received.map(SharedFrames.number) == numbers)
      let isWhole = zip(peer.received, numbers).allSatisfy {
        $0 == incoming(peer.index, $1, payload: [60, 100, 1400][$1 / 3 % 3])
      }
      #expect(isWhole)
      #expect(peer.completed == numbers)
    }
    let out = bench.wire.sent.map(\.frame)
    #expect(out.count == rounds && Set(out) == Set(sent))
    try bench.turns(20)
    let counters = bench.counters
    for index in 0..<3 {
      #expect(counters["rx_i\(index)_packets"] == 200)
      #expect(counters["rx_i\(index)_copied_packets"] == 200)
      #expect(counters["tx_i\(index)_packets"] == 200)
      #expect(counters["tx_i\(index)_refused_source"] == 0)
    }
    let bytes = (0..<rounds).reduce(0) {
      $0 + incoming(0, 0, payload: [60, 100, 1400][$1 / 3 % 3]).count
    }
    let copied = (0..<3).reduce(0) { $0 + Int(counters["rx_i\($1)_copied_bytes"] ?? 0) }
    #expect(copied == bytes)
    #expect(bench.isConserved(peers) && bench.inFlight == 0)
    #expect(bench.device.violations.first == [])
    #expect(bench.device.iommu.faults.isEmpty)
  }

  /// Whose time is limited waits when he has used it up, and loses nothing for it; the others do not wait.
  @Test func whoHasUsedUpHisTimeWaits() throws {
    let bench = try SharedBench()
    let slow = try bench.attach(0, time: 1)
    let quick = try bench.attach(1)
    let count = 250
    for number in 0..<count {
      slow.send(outgoing(0, number), segment: number, tag: number)
      quick.send(outgoing(1, number), segment: number, tag: number)
    }
    var turns = 0
    while quick.completed.count < count && turns < 2000 {
      try bench.turn()
      try quick.take()
      turns += 1
    }
    try slow.take()
    #expect(quick.completed.count == count)
    #expect(slow.completed.count < count)
    // On a busy machine it has got time again by now, and uses that up.
    while bench.sleepLimit != 1 && slow.completed.count < count {
      try bench.turn()
      try slow.take()
    }
    #expect(bench.sleepLimit == 1)
    let isQuiet = bench.prepareToSleep()
    bench.wake()
    #expect(isQuiet)
    while slow.completed.count < count && turns < 200_000 {
      try bench.turn()
      try slow.take()
      turns += 1
    }
    #expect(slow.completed.count == count)
    #expect(bench.counters["i0_out_of_time"] ?? 0 > 0 && bench.counters["i1_out_of_time"] == 0)
    #expect(bench.wire.sent.count == 2 * count)
    #expect(bench.isConserved([slow, quick]) && bench.inFlight == 0)
  }

  /// A completion that found no room is handed back as soon as there is some, whether or not the instance could know that
  /// the host was about to sleep (Models/FullRing.pml).
  @Test func nobodySleepsBesideRoomForACompletion() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    let count = 300
    for number in 0..<count {
      peer.send(outgoing(0, number), segment: number, tag: number)
      try bench.turns(2)
    }
    try bench.turns(40)
    #expect(bench.maySleep())
    // It rings nobody: as far as it can see the host is awake.
    try peer.take()
    let maySleep = bench.prepareToSleep()
    bench.wake()
    #expect(!maySleep && peer.completed.count == 256)
    try bench.turns(2)
    try peer.take()
    #expect(peer.completed == Array(0..<count))
    #expect(bench.isConserved([peer]) && bench.inFlight == 0)
  }

  @Test func aPacketForSeveralIsCopiedForEach() throws {
    let bench = try SharedBench()
    let peers = [
      try bench.attach(0, claims: ["ipv4:10.0.0.1", "group:224.0.0.251"]),
      try bench.attach(5, claims: ["ipv4:10.0.0.6"]),
      try bench.attach(63, claims: ["group:224.0.0.251", "rest"]),
    ]
    var frame = incoming(0, 7)
    frame.replaceSubrange(0..<6, with: [1, 0, 0x5e, 0, 0, 0xfb])
    frame.replaceSubrange(30..<34, with: [224, 0, 0, 251])
    bench.wire.arriving.append(frame)
    var broadcast = incoming(0, 8)
    broadcast.replaceSubrange(0..<6, with: [UInt8](repeating: 0xff, count: 6))
    broadcast.replaceSubrange(30..<34, with: [255, 255, 255, 255])
    bench.wire.arriving.append(broadcast)
    bench.wire.arriving.append(incoming(77, 9))
    try bench.turns(40)
    for peer in peers { try peer.take() }
    #expect(peers[0].received == [frame])
    #expect(peers[1].received.isEmpty)
    #expect(peers[2].received == [frame, broadcast, incoming(77, 9)])
    try bench.turns(20)
    #expect(bench.isConserved(peers))
  }

  @Test func aForeignSourceIsRefusedAndItsTagComesBack() throws {
    let bench = try SharedBench()
    let peers = try (0..<2).map { try bench.attach($0) }
    peers[0].send(outgoing(1, 1), segment: 0, tag: 11)
    peers[0].send(outgoing(0, 2), segment: 1, tag: 12)
    var forged = outgoing(0, 3)
    forged[6] = 2
    peers[0].send(forged, segment: 2, tag: 13)
    peers[0].send([UInt8](repeating: 0, count: 20), segment: 3, tag: 14)
    // The headers lie in three pieces.
    let split = outgoing(0, 4)
    let unit = UInt32(SharedPeer.firstUnit + 20)
    (peers[0].arena.address + Int(unit) * 1024).copyMemory(from: split, byteCount: split.count)
    peers[0].send([
      Descriptor(segment: unit, length: 13, flags: .more, tag: 15),
      Descriptor(segment: unit, offset: 13, length: 21, flags: .more),
      Descriptor(segment: unit, offset: 34, length: UInt32(split.count) - 34),
    ])
    try bench.turns(40)
    try peers[0].take()
    #expect(Set(peers[0].completed) == [11, 12, 13, 14, 15])
    #expect(bench.wire.sent.map(\.frame) == [outgoing(0, 2), split])
    let counters = bench.counters
    #expect(counters["tx_i0_refused_source"] == 3)
    #expect(counters["tx_i0_packets"] == 2)
    #expect(bench.isConserved(peers) && bench.inFlight == 0)
  }

  /// What was checked is what is sent, whatever the instance writes meanwhile; what follows is sent where it lies.
  @Test func headersAreSentFromWhereOnlyTheHostWrites() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    try bench.turns(20)
    let frame = outgoing(0, 5, payload: 400)
    peer.send(frame, tag: 1)
    bench.stepPath()
    // After the host has looked and before the device reads.
    let bytes = peer.arena.address + SharedPeer.firstUnit * 1024
    bytes.initializeMemory(as: UInt8.self, repeating: 0xee, count: frame.count)
    try bench.turns(5)
    let sent = try #require(bench.wire.sent.first).frame
    #expect(Array(sent[..<128]) == Array(frame[..<128]))
    #expect(sent[128...].allSatisfy { $0 == 0xee } && sent.count == frame.count)
  }

  @Test func aReceivedSegmentIsSentInPlace() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0)
    for (number, payload) in [(1, 60), (2, 1000)] {
      bench.wire.arriving.append(incoming(0, number, payload: payload))
      try bench.turns(20)
      try peer.end.receive.pop(into: &peer.burst)
      try #require(peer.burst.count == 1)
      let slot = peer.burst[0]
      peer.burst.removeAll()
      let answer = outgoing(0, number + 100, payload: payload)
      (peer.arena.address + Int(slot.position)).copyMemory(from: answer, byteCount: answer.count)
      var sending = slot
      sending.tag = UInt16(number)
      peer.send([sending])
      bench.stepPath()
      #expect(bench.counters["rx_i0_segments_sending"] == 1)
      try bench.turns(20)
      #expect(bench.wire.sent.last?.frame == answer)
      #expect(bench.counters["rx_i0_segments_sending"] == 0)
      // It is still the instance's, to be given back.
      peer.burst.append(slot)
      peer.end.free.push(&peer.burst)
      try bench.turns(20)
    }
    try peer.take()
    #expect(peer.completed == [1, 2])
    #expect(bench.counters["tx_i0_sent_in_place"] == 2)
    #expect(bench.counters["rx_i0_segments_instance"] == 0)
    #expect(bench.isConserved([peer]) && bench.counters["instances_closed"] == 0)
  }

  @Test func anInstanceThatNeverDrainsLosesOnlyItsOwn() throws {
    let bench = try SharedBench()
    let hung = try bench.attach(0)
    let polite = try bench.attach(1)
    for number in 0..<2000 {
      bench.wire.arriving.append(incoming(0, number))
      bench.wire.arriving.append(incoming(1, number))
      hung.send(outgoing(0, number), segment: number % 100, tag: number % 60_000)
      polite.send(outgoing(1, number), segment: number % 100, tag: number)
      try bench.turn()
      try polite.take()
    }
    try bench.turns(200)
    try polite.take()
    let counters = bench.counters
    #expect(polite.received.map(SharedFrames.number) == Array(0..<2000))
    #expect(polite.completed == Array(0..<2000))
    // Its segments are gone: 128 of them.
    #expect(counters["rx_i0_packets"] == 128)
    let dropped = ["ring_full", "no_segment", "budget"].reduce(UInt64(0)) {
      $0 + (counters["rx_i0_dropped_\($1)"] ?? 0)
    }
    #expect(dropped == 2000 - 128)
    #expect((counters["tx_i0_packets"] ?? 0) <= 256 + 256)
    #expect(bench.isConserved([hung, polite]))
    // A host with nothing else to do can sleep.
    #expect(bench.maySleep())
    #expect(try bench.detach(hung))
    #expect(bench.inFlight == 0)
  }

  @Test func sixtyFourInstancesAreAllServed() throws {
    let bench = try SharedBench()
    let peers = try (0..<64).map { try bench.attach($0) }
    for number in 0..<640 {
      let index = number * 37 % 64
      bench.wire.arriving.append(incoming(index, index))
      peers[index].send(outgoing(index, index), segment: number % 50, tag: number)
      try bench.turn()
    }
    try bench.turns(200)
    for peer in peers {
      try peer.take()
      #expect(peer.received == [[UInt8]](repeating: incoming(peer.index, peer.index), count: 10))
      #expect(peer.completed.count == 10)
    }
    try bench.turns(40)
    #expect(bench.isConserved(peers) && bench.inFlight == 0)
    #expect(bench.wire.sent.count == 640)
  }

  /// One that floods does not keep the others' packets waiting behind more than a few of its own.
  @Test func whoFloodsGetsNoMoreThanItsShareOfTheRing() throws {
    let bench = try SharedBench()
    let flooding = try bench.attach(0, slots: 4096)
    let polite = try bench.attach(1)
    for number in 0..<2000 {
      flooding.send(outgoing(0, 1, payload: 1400), segment: number % 500, tag: 0)
    }
    // The device does not work: its ring fills.
    polite.send(outgoing(1, 2), tag: 1)
    for _ in 0..<40 { bench.stepPath() }
    polite.send(outgoing(1, 3), segment: 1, tag: 2)
    for _ in 0..<40 { bench.stepPath() }
    try bench.turns(4)
    let order = bench.wire.sent.map { SharedFrames.number($0.frame) }
    let last = try #require(order.firstIndex(of: 3))
    #expect(last <= 2 * InstancePort.inFlightBesideOthers + 64 * 3, "\(last)")
    #expect(order.contains(2))
  }
}
