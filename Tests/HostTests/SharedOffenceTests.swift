import CLinux
import Driver
import Glibc
import Memory
import Testing
import VirtioNetDevice

@testable import Channel
@testable import Host

/// What an instance may do against the channel's rules: it is closed with a reason that it can read, and the others see
/// nothing of it.
@Suite struct SharedOffenceTests {
  struct Case: CustomTestStringConvertible {
    var name: String
    var reason: EndReason
    var act: @Sendable (SharedPeer) -> Void
    var testDescription: String { name }
  }

  static let unit = UInt32(SharedPeer.firstUnit)
  static let arenaUnits = UInt32(SharedBench.arenaBytes / 1024)

  static func piece(
    _ segment: UInt32, _ offset: UInt32 = 0, _ length: UInt32, _ flags: Descriptor.Flags = []
  ) -> Descriptor { Descriptor(segment: segment, offset: offset, length: length, flags: flags) }

  static func sending(
    _ name: String, _ reason: EndReason = .outsideItsMemory, _ slots: Descriptor...
  )
    -> Case
  {
    Case(name: name, reason: reason) { $0.send(slots) }
  }

  static func freeing(_ name: String, _ segments: UInt32...) -> Case {
    Case(name: name, reason: .notItsSegment) { peer in
      for segment in segments { peer.burst.append(Descriptor(segment: segment)) }
      peer.end.free.push(&peer.burst)
    }
  }

  static func index(_ name: String, _ ring: ChannelLayout.Ring, _ value: UInt32) -> Case {
    Case(name: name, reason: .indexJump) {
      release_store32(
        $0.memory.bytes.baseAddress! + $0.memory.layout.producerIndex(0, ring), value)
    }
  }

  static func offload(_ name: String, _ metadata: Offload) -> Case {
    Case(name: name, reason: .badOffload) {
      let frame = SharedFrames.udp(
        from: SharedFrames.address($0.index), to: SharedFrames.far, number: 1, isOutgoing: true)
      $0.send(frame, offload: metadata)
    }
  }

  static let cases: [Case] = [
    index("S1 producer index ahead of the ring", .transmit, 60 + 257),
    index("S1 the same of the free ring", .free, 0x8000_0000),
    index("S2 producer index backwards", .transmit, .max),
    sending("S5 offset beyond the segments", .outsideItsMemory, piece(unit, 0x4000_0000, 64)),
    sending("S6 the sum wraps", .outsideItsMemory, piece(.max, .max, .max)),
    sending("S6 the length is all ones", .outsideItsMemory, piece(unit, 0, .max)),
    sending("S7 no length", .outsideItsMemory, piece(unit, 0, 0)),
    sending("S8 longer than what is left", .outsideItsMemory, piece(arenaUnits - 1, 0, 1025)),
    sending(
      "S9 several pieces, one of them in the receive part", .outsideItsMemory,
      piece(unit, 0, 64, .more), piece(0, 0, 64)),
    sending("S9 in place, over a segment's end", .outsideItsMemory, piece(0, 2000, 64)),
    sending("S9 in place, in the middle of a segment", .notItsSegment, piece(1, 0, 64)),
    sending("S11 in place, not its own", .notItsSegment, piece(252, 0, 64)),
    freeing("S10, S14 twice in a batch", 4, 4),
    freeing("S12 of another", UInt32(SharedBench.slotBytes / 1024)),
    freeing("S13 never had", 252),
    freeing("S15 no segment", 1), freeing("S15 far out", .max),
    sending(
      "S30 of another's arena", .outsideItsMemory,
      piece(UInt32(SharedBench.slotBytes / 1024), 0, 64)),
    sending("an aggregate of which nothing follows", .badAggregate, piece(unit, 0, 64, .aggregate)),
    sending(
      "an aggregate with metadata for a packet", .badAggregate,
      piece(0, 0, 0, [.offload, .more, .aggregate]), piece(unit, 0, 64)),
    sending(
      "two aggregates with one tag", .badAggregate, piece(unit, 0, 64, [.more, .aggregate]),
      piece(unit, 0, 64), piece(unit, 0, 64, [.more, .aggregate]), piece(unit, 0, 64)),
    sending(
      "an aggregate from outside its memory", .outsideItsMemory,
      piece(unit, 0, 64, [.more, .aggregate]), piece(arenaUnits, 0, 64)),
    sending("metadata alone", .badOffload, piece(0, 0, 0, .offload)),
    sending(
      "metadata behind a piece", .badOffload, piece(unit, 0, 64, .more),
      piece(0x4000_0000, 0, 64, .offload)),
    sending(
      "segmentation of no kind", .badOffload, piece(0, 0, 7 << 16, [.offload, .more]),
      piece(unit, 0, 64)),
    offload(
      "S6 checksum behind the end",
      Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 0xffff)),
    offload(
      "segmentation that is not offered",
      Offload(
        segmentation: .udp, needsChecksum: true, segmentSize: 8, checksumStart: 34,
        checksumOffset: 6)),
    Case(name: "S29 a packet without end", reason: .endlessPacket) { peer in
      for _ in 0..<200 { peer.burst.append(piece(unit, 0, 1, .more)) }
      peer.burst.append(piece(unit, 0, 1))
      peer.end.transmit.push(&peer.burst)
    },
  ]

  @Test(arguments: cases) func theOffenderIsClosedAndNobodyElse(_ offence: Case) throws {
    var offers = VirtioNetDevice.Options()
    offers.queuePairs = 1
    let bench = try SharedBench(offers: offers, slots: 4)
    let peers = try (0..<3).map { try bench.attach($0) }
    let offender = peers[1]
    for number in 0..<120 {
      for peer in peers {
        bench.wire.arriving.append(
          SharedFrames.udp(
            from: SharedFrames.far, to: SharedFrames.address(peer.index), number: number))
        if peer === offender && number >= 60 { continue }
        peer.send(
          SharedFrames.udp(
            from: SharedFrames.address(peer.index), to: SharedFrames.far, number: number,
            isOutgoing: true), segment: number % 100, tag: number)
      }
      if number == 60 { offence.act(offender) }
      try bench.turn()
      for peer in peers where peer !== offender || number < 40 { try peer.take() }
    }
    try bench.turns(40)
    #expect(
      try bench.waits(for: "closed id=\(offender.id) reason=\(offence.reason.name)"),
      "\(bench.news)")
    #expect(offender.memory.end.isAsked && offender.memory.end.reason == offence.reason)
    for peer in peers where peer !== offender {
      try peer.take()
      #expect(peer.received.map(SharedFrames.number) == Array(0..<120))
      #expect(peer.completed == Array(0..<120))
      #expect(!peer.memory.end.isAsked)
    }
    #expect(bench.counters["instances_closed"] == 1)
    #expect(try bench.detach(offender))
    try bench.turns(20)
    #expect(bench.inFlight == 0 && bench.isConserved([peers[0], peers[2]]))
    #expect(bench.counters["rx_i1_packets"] == nil)
    #expect(bench.device.violations.first == [])
    #expect(bench.device.iommu.faults.isEmpty)
    // Its place can be had again; its old name means nothing any more.
    let next = try bench.attach(1, generation: 2)
    bench.tell("detach id=\(offender.id)")
    #expect(try bench.waits(for: "refused id=\(offender.id) what=detach"))
    #expect(bench.counters["rx_i1_packets"] == 0)
    _ = next
  }

  /// What an instance says of its receive ring is not believed further than it makes sense: it only hurts itself.
  @Test func aConsumerIndexThatLiesHurtsNobodyElse() throws {
    let bench = try SharedBench(slots: 4)
    let peers = try (0..<2).map { try bench.attach($0) }
    release_store32(
      peers[0].memory.bytes.baseAddress! + peers[0].memory.layout.consumerIndex(0, .receive),
      0x7fff_ffff)
    for number in 0..<300 {
      for index in 0..<2 {
        bench.wire.arriving.append(
          SharedFrames.udp(
            from: SharedFrames.far, to: SharedFrames.address(index), number: number))
      }
      try bench.turn()
      try peers[1].take()
    }
    try bench.turns(20)
    try peers[1].take()
    #expect(peers[1].received.count == 300)
    #expect(bench.isConserved(peers))
  }

  /// A sum that is stored over what was looked at, or headers that are cut short, would send what was not checked.
  @Test func metadataThatDisagreesWithTheHeadersIsNotSent() throws {
    let bench = try SharedBench(slots: 4)
    let peer = try bench.attach(0)
    let frame = SharedFrames.udp(
      from: SharedFrames.address(0), to: SharedFrames.far, number: 1, isOutgoing: true)
    for metadata in [
      Offload(needsChecksum: true, checksumStart: 14, checksumOffset: 12),
      Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 0),
      Offload(needsChecksum: true, checksumStart: 20, checksumOffset: 6),
    ] {
      peer.send(frame, tag: 3, offload: metadata)
      try bench.turns(20)
    }
    #expect(bench.wire.sent.isEmpty)
    peer.send(
      frame, tag: 4, offload: Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 6))
    try bench.turns(20)
    try peer.take()
    #expect(peer.completed == [3, 3, 3, 4] && bench.wire.sent.count == 1)
    #expect(bench.counters["tx_i0_errors"] == 3 && bench.counters["instances_closed"] == 0)
  }

  /// The supervisor is not believed blindly.
  @Test func requestsThatCannotBeAreRefused() throws {
    let bench = try SharedBench(slots: 4)
    let held = try bench.attach(0)
    let peer = try SharedPeer(1, 1, slots: 256)
    let base = SharedBench.hostArenaBytes + SharedBench.slotBytes
    let good = "receive=\(SharedBench.receiveBytes) bytes=\(SharedBench.arenaBytes) slots=256"
    let descriptors = [
      peer.arena.descriptor, peer.memory.descriptor, peer.record.descriptor, peer.hostEnd,
      peer.ring,
    ]
    for (text, sent) in [
      ("attach id=1 slot=\(base) \(good)", descriptors),
      ("attach id=320 slot=\(base) \(good)", descriptors),
      ("attach id=257 slot=\(base + 4096) \(good)", descriptors),
      ("attach id=257 slot=0 \(good)", descriptors),
      ("attach id=257 slot=\(SharedBench.hostArenaBytes) \(good)", descriptors),
      ("attach id=257 slot=\(1 << 40) \(good)", descriptors),
      ("attach id=256 slot=\(base) \(good)", descriptors),
      ("attach id=257 slot=\(base) \(good)", Array(descriptors.prefix(2))),
      ("attach id=257 slot=\(base) receive=4096 bytes=4096 slots=256", descriptors),
      ("attach id=257 slot=\(base) receive=5000 bytes=8192 slots=256", descriptors),
      ("attach id=257 slot=\(base) receive=4096 bytes=\(4 << 20) slots=256", descriptors),
      ("attach id=257 slot=\(base) receive=4096 bytes=8192 slots=300", descriptors),
      ("attach id=257 slot=\(base) receive=4096 bytes=8192 slots=512", descriptors),
      (
        "attach id=257 slot=\(base) \(good)",
        [descriptors[1], descriptors[0], descriptors[2], descriptors[3], descriptors[4]]
      ),
      (
        "attach id=257 slot=\(base) \(good)",
        [descriptors[0], descriptors[1], descriptors[1], descriptors[3], descriptors[4]]
      ),
      ("claim id=257 claim=rest", []), ("claim id=256 claim=nonsense", []),
      ("claim id=256 claim=ipv4:10.0.0.1", []), ("unclaim id=256 claim=rest", []),
      ("extent id=256 offset=0 bytes=2097152", [descriptors[0]]),
      ("extent id=256 offset=\(SharedBench.arenaBytes) bytes=4096", [descriptors[0]]),
      ("extent id=256 offset=\(SharedBench.arenaBytes) bytes=2097152", []),
      ("shrink id=256 bytes=4096", []), ("shrink id=256 bytes=\(SharedBench.arenaBytes)", []),
      ("nonsense id=256", []), ("detach", []), ("detach id=512", []),
    ] as [(String, [Int32])] {
      bench.news.removeAll()
      bench.tell(text, sent)
      #expect(try bench.waits(for: "refused id="), "\(text)")
    }
    // Nothing of it stays: the same place can be had.
    _ = try bench.attach(1)
    #expect(!held.memory.end.isAsked)
  }
}

/// Instances and the descriptors by which they and the host wake each other.
@Suite(.serialized) struct HostileDoorbellTests {
  /// One instance lets calls on its doorbells block, fills them and never reads: the host goes on, and another instance is
  /// woken and wakes it.
  @Test func whoFillsItsDoorbellsHoldsNobody() throws {
    let bench = try SharedBench()
    let hostile = try bench.attach(0)
    let polite = try bench.attach(1)
    try bench.startThread(.interrupt)
    for descriptor in [hostile.doorbell, hostile.ring, hostile.hostEnd] {
      _ = linux_fcntl(descriptor, F_SETFL, 0)
    }
    var most = UInt64.max - 1
    #expect(write(hostile.ring, &most, 8) == 8)
    var one: UInt64 = 1
    while send(hostile.hostEnd, &one, 8, Int32(MSG_DONTWAIT)) == 8 {}
    for round in 0..<50 {
      hostile.end.doorbell.announceSleep()
      polite.end.doorbell.announceSleep()
      for index in 0..<2 {
        bench.function.exclusively {
          bench.wire.arriving.append(
            SharedFrames.udp(
              from: SharedFrames.far, to: SharedFrames.address(index), number: round))
        }
      }
      #expect(try bench.isRung(polite.doorbell))
      try polite.take()
      #expect(polite.received.count == round + 1)
      polite.send(
        SharedFrames.udp(
          from: SharedFrames.address(1), to: SharedFrames.far, number: round, isOutgoing: true),
        tag: round)
      let isSent = try bench.turns(until: {
        try polite.take()
        return polite.completed.count == round + 1
      })
      #expect(isSent)
    }
    bench.stopThread()
    #expect(bench.news.isEmpty)
  }

  /// An instance that takes every wake-up it can see, and closes its own doorbell, takes no other's.
  @Test func whoReadsDoorbellsTakesNobodysWakeUps() throws {
    let bench = try SharedBench()
    let hostile = try bench.attach(0)
    let polite = try bench.attach(1)
    try bench.startThread(.interrupt)
    shutdown(hostile.doorbell, Int32(SHUT_RDWR))
    var slowCount = 0
    for round in 0..<50 {
      let begin = monotonic_milliseconds()
      var value: UInt64 = 0
      while read(hostile.ring, &value, 8) == 8 {}
      polite.send(
        SharedFrames.udp(
          from: SharedFrames.address(1), to: SharedFrames.far, number: round, isOutgoing: true),
        tag: round)
      let isSent = try bench.turns(until: {
        _ = read(hostile.ring, &value, 8)
        try polite.take()
        return polite.completed.count == round + 1
      })
      #expect(isSent)
      // A wake-up that is lost costs a second.
      if monotonic_milliseconds() - begin >= 900 { slowCount += 1 }
    }
    #expect(slowCount < 25)
    bench.stopThread()
  }
}

extension SharedBench {
  /// Turns until something holds, thirty seconds at most.
  func turns(until isDone: () throws -> Bool) throws -> Bool {
    for _ in 0..<300_000 {
      try turn()
      if try isDone() { return true }
      usleep(100)
    }
    return false
  }

  /// Turns until there is something to read at a doorbell, and takes it.
  func isRung(_ doorbell: Int32) throws -> Bool {
    var rings = InlineArray<64, UInt64>(repeating: 0)
    return try turns(until: { recv(doorbell, &rings, 512, Int32(MSG_DONTWAIT)) > 0 })
  }
}
