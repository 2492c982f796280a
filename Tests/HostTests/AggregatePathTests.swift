import Channel
import Driver
import Memory
import Testing
import VirtioNet

@testable import Host

/// Aggregates on the way of packets through a host.
@Suite struct AggregatePathTests {
  private let part = UInt32(HostBench.partBytes / 1024)

  /// Single pieces of 200 bytes, of frames from `first` on.
  private func packets(_ bench: HostBench, _ numbers: Range<Int>, into burst: inout Burst) {
    for number in numbers {
      let unit = part + UInt32(number % 1000)
      (bench.arena + Int(unit) * 1024).copyMemory(from: bench.frame(number), byteCount: 200)
      burst.append(Descriptor(segment: unit, length: 200, tag: UInt16(number)))
    }
  }

  private func tags(_ instance: inout InstanceEnd) throws -> [UInt16] {
    var done = Burst(capacity: 256)
    try instance.completion.pop(into: &done)
    return (0..<done.count).map { done[$0].tag }
  }

  @Test func anAggregateIsSentAsPacketsAndCompletedOnce() throws {
    let bench = try HostBench()
    var driver = try bench.driver()
    var path = bench.path(&driver)
    var instance = InstanceEnd(bench.memory, queue: 0, hostDoorbell: -1)
    try driver.start()
    var burst = Burst(capacity: 128)
    // An aggregate of eight, an ordinary packet, one of two.
    packets(bench, 0..<8, into: &burst)
    burst.joinPackets()
    packets(bench, 8..<9, into: &burst)
    packets(bench, 9..<11, into: &burst)
    burst.joinPackets(from: 9)
    instance.transmit.push(&burst)
    _ = try path.turn()
    var inFlight = path.inFlight
    let none = try tags(&instance)
    #expect(inFlight == 3 && none.isEmpty)
    while bench.device.step() {}
    _ = try path.turn()
    #expect(bench.wire.sent.map(\.frame) == (0..<11).map { bench.frame($0) })
    let done = try tags(&instance)
    inFlight = path.inFlight
    #expect(Set(done) == [0, 8, 9] && done.count == 3 && inFlight == 0)
    #expect(bench.device.violations.first == [])
    driver.stop()
  }

  @Test func aTagIsCompletedAfterItsLastPacketThroughFullRings() throws {
    let bench = try HostBench()
    var driver = try bench.driver()
    var path = bench.path(&driver)
    var instance = InstanceEnd(bench.memory, queue: 0, hostDoorbell: -1)
    try driver.start()
    var burst = Burst(capacity: 128)
    var first = 0
    var sizes: [UInt16: Int] = [:]
    var completed: [UInt16] = []
    var owed = 0
    while completed.count < 300 {
      if burst.isEmpty && first < 10_000 && sizes.count < 300 {
        let count = 1 + first % 37
        packets(bench, first..<first + count, into: &burst)
        burst.joinPackets()
        sizes[UInt16(first)] = count
        first += count
      }
      instance.transmit.push(&burst)
      _ = try path.turn()
      if sizes.count % 3 != 0 || sizes.count == 300 { _ = bench.device.step() }
      _ = try path.turn()
      completed += try tags(&instance)
      // No tag comes back before all of its packets have been sent.
      let sent = completed.reduce(0) { $0 + (sizes[$1] ?? 100_000) }
      #expect(sent <= bench.wire.sent.count)
      owed = path.inFlight
    }
    #expect(owed == 0 && Set(completed) == Set(sizes.keys))
    #expect(bench.wire.sent.map(\.frame) == (0..<first).map { bench.frame($0) })
    driver.stop()
  }

  @Test func anAggregateThatTheDeviceKeepsComesBackOnce() throws {
    let bench = try HostBench()
    var driver = try bench.driver()
    var path = bench.path(&driver)
    var instance = InstanceEnd(bench.memory, queue: 0, hostDoorbell: -1)
    try driver.start()
    var burst = Burst(capacity: 128)
    packets(bench, 0..<20, into: &burst)
    burst.joinPackets()
    packets(bench, 20..<21, into: &burst)
    instance.transmit.push(&burst)
    _ = try path.turn()
    driver.stop()
    let isAll = path.takeBackFromDevice()
    let done = try tags(&instance)
    let left = (path.inFlight, path.aggregates.total)
    #expect(isAll && Set(done) == [0, 20] && done.count == 2 && left == (0, 0))
  }

  @Test func whatComesInIsJoinedWhereTheInstanceWantsIt() throws {
    let bench = try HostBench()
    var driver = try bench.driver()
    var path = bench.path(&driver)
    var instance = InstanceEnd(bench.memory, queue: 0, hostDoorbell: -1)
    try driver.start()
    instance.wantAggregates()
    _ = try path.turn()
    bench.wire.arriving = (0..<20).map { bench.frame($0) }
    while bench.device.step() {}
    _ = try path.turn()
    var got = Burst(capacity: 128)
    try instance.receive.pop(into: &got)
    let ends = (0..<got.count).count { !got[$0].flags.contains(.more) }
    #expect(ends == 1)
    let packets = try got.openAggregates()
    #expect(packets == 20)
    for index in 0..<got.count {
      let bytes = UnsafeRawBufferPointer(
        start: bench.arena + Int(got[index].position), count: Int(got[index].length))
      #expect(Array(bytes) == bench.frame(index) && !got[index].flags.contains(.more))
    }
    instance.free.push(&got)
    // One that does not drain loses packets, not bursts: each is counted.
    for round in 0..<40 {
      bench.wire.arriving = (0..<20).map { bench.frame(round * 20 + $0) }
      while bench.device.step() {}
      _ = try path.turn()
      _ = try path.turn()
    }
    let counts = (Int(path.counts.dropsRingFull), path.ledger.instanceCount)
    #expect(counts.0 + counts.1 == 800 && counts.1 > 200)
    driver.stop()
  }

  /// Each is an offence, and is named.
  @Test func badAggregatesCloseTheInstance() throws {
    let joint = Descriptor.Flags(rawValue: 17)
    func piece(_ flags: Descriptor.Flags, _ tag: UInt16 = 1) -> Descriptor {
      Descriptor(segment: part, length: 100, flags: flags, tag: tag)
    }
    let metadata = Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 6).slot
    var marked = metadata
    marked.flags.insert(.aggregate)
    let outside = Descriptor(segment: 0, length: 100, flags: joint)
    let long = [Descriptor](repeating: piece(joint), count: 100) + [piece([])]
    let cases: [([Descriptor], String)] = [
      ([piece(.aggregate)], "another packet should follow"),
      ([piece(joint), piece(.aggregate)], "another packet should follow"),
      ([piece(joint), marked, piece([])], "without bytes"),
      ([piece(joint), piece(.more), metadata, piece([])], "in the middle of a packet"),
      ([piece(.more), metadata, piece([])], "where none may stand"),
      ([outside, piece([])], "transmit part"),
      ([piece(joint), Descriptor(segment: 0, length: 100)], "transmit part"),
      (long, "101 slots"),
      (
        [piece(joint), piece([]), piece(joint), piece([])],
        "two aggregates are under way with tag 1"
      ),
    ]
    for (slots, text) in cases {
      let bench = try HostBench()
      var driver = try bench.driver()
      var path = bench.path(&driver)
      var instance = InstanceEnd(bench.memory, queue: 0, hostDoorbell: -1)
      try driver.start()
      var burst = Burst(capacity: 128)
      for slot in slots { burst.append(slot) }
      instance.transmit.push(&burst)
      var offence = ""
      do throws(HostError) { _ = try path.turn() } catch { offence = error.description }
      #expect(offence.contains(text), "\(text): \(offence)")
      driver.stop()
      #expect(bench.wire.sent.isEmpty)
    }
  }
}
