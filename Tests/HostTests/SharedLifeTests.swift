import CLinux
import Glibc
import Memory
import Testing

@testable import Channel
@testable import Host

/// Instances that come and go, grow and shrink, and the shares that they have.
@Suite struct SharedLifeTests {
  private func incoming(_ index: Int, _ number: Int, payload: Int = 60) -> [UInt8] {
    SharedFrames.udp(
      from: SharedFrames.far, to: SharedFrames.address(index), number: number, payload: payload)
  }

  private func outgoing(_ index: Int, _ number: Int) -> [UInt8] {
    SharedFrames.udp(
      from: SharedFrames.address(index), to: SharedFrames.far, number: number, isOutgoing: true)
  }

  /// Descriptors of this process that are of the same file.
  private func descriptors(of descriptor: Int32) -> Int {
    var wanted = stat()
    fstat(descriptor, &wanted)
    return (Int32(0)..<1024).filter {
      var status = stat()
      return fstat($0, &status) == 0 && status.st_ino == wanted.st_ino
        && status.st_dev == wanted.st_dev
    }.count
  }

  @Test func aThousandComeAndGoUnderTrafficOfTheOthers() throws {
    let bench = try SharedBench(slots: 4)
    let steady = try bench.attach(0)
    var number = 0
    func traffic() throws {
      bench.wire.arriving.append(incoming(0, number))
      steady.send(outgoing(0, number), segment: number % 100, tag: number)
      number += 1
      try bench.turn()
      try steady.take()
    }
    for generation in 1...1000 {
      let index = 1 + generation % 3
      let peer = try bench.attach(index, generation: generation)
      bench.wire.arriving.append(incoming(index, 1))
      peer.send(outgoing(index, 1), tag: 1)
      for _ in 0..<(generation % 4) { try traffic() }
      // It goes with packets under way, and with segments in its hands.
      if generation % 2 == 0 { peer.send(outgoing(index, 2), segment: 1, tag: 2) }
      let isGone = try bench.detach(peer)
      try #require(isGone, "\(generation): \(bench.news)")
    }
    try bench.turns(40)
    try steady.take()
    #expect(steady.received.map(SharedFrames.number) == Array(0..<number))
    #expect(steady.completed == Array(0..<number))
    #expect(bench.isConserved([steady]) && bench.inFlight == 0)
    let names = bench.counters.keys.filter { $0.contains("_i1_") || $0.contains("_i3_") }
    #expect(names.isEmpty)
    #expect(bench.device.iommu.faults.isEmpty)
  }

  /// The same with a thread for the path, which polls or sleeps.
  @Test(arguments: [PollMode.yield, .interrupt])
  func theyComeAndGoWhileAThreadTurns(_ mode: PollMode) throws {
    let bench = try SharedBench(slots: 4)
    try bench.startThread(mode)
    defer { bench.stopThread() }
    let steady = try bench.attach(0)
    var number = 0
    for generation in 1...50 {
      let peer = try bench.attach(1 + generation % 3, generation: generation)
      for _ in 0..<4 {
        bench.function.exclusively { bench.wire.arriving.append(incoming(0, number)) }
        steady.send(outgoing(0, number), segment: number % 100, tag: number)
        number += 1
        peer.send(outgoing(peer.index, 1), segment: number % 4, tag: 1)
        for _ in 0..<20_000 where steady.received.count < number || steady.completed.count < number
        {
          try bench.turn()
          try steady.take()
        }
      }
      let isGone = try bench.detach(peer)
      try #require(isGone)
    }
    #expect(steady.received.map(SharedFrames.number) == Array(0..<number))
    #expect(steady.completed == Array(0..<number))
    bench.stopThread()
    try bench.turns(40)
    #expect(bench.isConserved([steady]) && bench.inFlight == 0)
  }

  @Test func anInstanceGoesOnlyWhenTheDeviceHasDoneWithItsPackets() throws {
    let bench = try SharedBench(slots: 4)
    let peer = try bench.attach(0)
    peer.send(outgoing(0, 1), tag: 1)
    bench.stepPath()
    #expect(bench.inFlight == 1)
    bench.tell("detach id=\(peer.id)")
    for _ in 0..<20 {
      bench.stepPath()
      bench.control.service()
    }
    #expect(try !bench.hears("detached"))
    #expect(peer.memory.end.isAsked && peer.memory.end.reason == .detached)
    #expect(try bench.waits(for: "detached id=\(peer.id) reason=detached"))
    #expect(bench.inFlight == 0)
  }

  @Test func anArenaGrowsAndShrinksWhilePacketsAreUnderWay() throws {
    let bench = try SharedBench(slots: 4)
    let peer = try bench.attach(0)
    let extent = try Arena(byteCount: 2 << 20, pageSize: .ordinary, name: "test")
    bench.tell(
      "extent id=\(peer.id) offset=\(SharedBench.arenaBytes) bytes=\(2 << 20)", [extent.descriptor])
    #expect(try bench.waits(for: "extended id=\(peer.id)"))
    try bench.device.iommu.map(
      iova: SharedBench.windowIOVA + UInt64(SharedBench.hostArenaBytes + SharedBench.arenaBytes),
      byteCount: 2 << 20,
      address: bench.windowAddress + SharedBench.hostArenaBytes + SharedBench.arenaBytes,
      rights: .read)
    let long = SharedFrames.udp(
      from: SharedFrames.address(0), to: SharedFrames.far, number: 5, payload: 900,
      isOutgoing: true)
    (extent.address + 4096).copyMemory(from: long, byteCount: long.count)
    let unit = UInt32((SharedBench.arenaBytes + 4096) / 1024)
    peer.send([Descriptor(segment: unit, length: UInt32(long.count), tag: 5)])
    bench.stepPath()
    bench.tell("shrink id=\(peer.id) bytes=\(SharedBench.arenaBytes)")
    for _ in 0..<20 {
      bench.stepPath()
      bench.control.service()
    }
    #expect(try !bench.hears("shrunk"), "a packet is with the device")
    #expect(try bench.waits(for: "shrunk id=\(peer.id)"))
    #expect(bench.wire.sent.map(\.frame) == [long])
    // What lies there now is not the instance's any more.
    peer.send([Descriptor(segment: unit, length: UInt32(long.count), tag: 6)])
    #expect(try bench.waits(for: "closed id=\(peer.id) reason=outside_its_memory"))
    #expect(bench.device.iommu.faults.isEmpty)
  }

  /// What is left open in the host is what wakes the instance.
  @Test func noMemoryDescriptorStaysOpen() throws {
    let bench = try SharedBench(slots: 4)
    let peer = try bench.attach(0)
    #expect(descriptors(of: peer.arena.descriptor) == 1)
    #expect(descriptors(of: peer.memory.descriptor) == 1)
    #expect(try bench.detach(peer))
    withExtendedLifetime(peer) {}
  }

  /// While the interface has more than can be done, who takes more than its share loses, and nobody else.
  @Test func whoTakesMoreThanItsShareLosesWhileTheInterfaceIsOverloaded() throws {
    let bench = try SharedBench(slots: 4)
    let flooded = try bench.attach(0, slots: 4096)
    let polite = try (1..<3).map { try bench.attach($0, slots: 4096) }
    // So many wait that no burst has room for all.
    for _ in 0..<60 { bench.wire.arriving.append(incoming(0, 1)) }
    for number in 0..<400 {
      for _ in 0..<63 { bench.wire.arriving.append(incoming(0, 1)) }
      for peer in polite { bench.wire.arriving.append(incoming(peer.index, number)) }
      for _ in 0..<3 { _ = bench.device.step() }
      try bench.turn()
      try flooded.take()
      for peer in polite { try peer.take() }
    }
    try bench.turns(200)
    for peer in polite { try peer.take() }
    let counters = bench.counters
    #expect(counters["rx_i1_dropped_budget"] == 0 && counters["rx_i2_dropped_budget"] == 0)
    for peer in polite { #expect(peer.received.count == 400) }
    #expect((counters["rx_i0_dropped_budget"] ?? 0) > 0, "\(counters)")
    #expect(bench.isConserved([flooded] + polite))
  }
}

extension SharedBench {
  /// Whether the host has said something that begins so, without a turn.
  func hears(_ text: String) throws -> Bool {
    hear()
    return news.contains { $0.hasPrefix(text) }
  }
}
