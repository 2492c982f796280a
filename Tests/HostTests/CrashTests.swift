import Channel
import Driver
import Glibc
import Testing

@testable import Channel
@testable import Host
@testable import Memory

/// A driver host ends at each step of each hand-over, and another one goes on: every segment has exactly one owner, and
/// every packet that the instance has sent is completed exactly once.
@Suite struct CrashTests {
  static let firstUnit = UInt32(RecordMemory.segments * 2)
  static let transmitPart = UInt64(firstUnit) * 1024..<UInt64(firstUnit + 64) * 1024

  /// - Returns: the path of a host that goes on, or begins.
  private func path(
    _ instance: PlayedInstance, _ memory: RecordMemory,
    _ watch: ((PathRecord.CrashPoint) -> Void)? = nil
  ) throws -> PacketPath<PlayedPair> {
    var record = memory.record
    record.atCrashPoint = watch
    var ledger = memory.ledger(record)
    var end = HostEnd(
      instance.memory, queue: 0, instanceDoorbell: -1, from: try record.reconcile(&ledger))
    let isTakenOver = end.takeOver()
    #expect(isTakenOver)
    return PacketPath(
      queuePair: PlayedPair(), channel: end, ledger: ledger, transmitPart: Self.transmitPart,
      record: record)
  }

  @Test func anExclusivePathIsTakenOverAtEachStep() throws {
    var states = 0
    for seed in 1...2 as ClosedRange<UInt64> {
      var dice = Dice(seed)
      let instance = try PlayedInstance(firstUnit: Self.firstUnit)
      let memory = RecordMemory()
      var seen: [Remains] = []
      var path = try path(instance, memory) { point in
        seen.append(Remains(instance, memory, at: point))
      }
      for _ in 0..<16 {
        if dice.roll(3) == 0 { instance.end.wantAggregates(dice.roll(2) == 0) }
        instance.send(dice.roll(20))
        if dice.roll(3) > 0 { try instance.take() }
        instance.giveBack(dice.roll(40))
        path.queuePair.arriving = dice.roll(30)
        path.queuePair.leaving = dice.roll(20)
        seen.removeAll()
        _ = try path.turn()
        let all = Remains.all(seen)
        for remains in all { try check(remains) }
        states += all.count
      }
    }
    #expect(states > 1000)
  }

  private func check(_ remains: Remains) throws {
    let instance = try PlayedInstance(remains, firstUnit: Self.firstUnit)
    let memory = RecordMemory(remains.record)
    var path = try path(instance, memory)
    // Each segment is in one place.
    let received = instance.slots(
      .receive, from: instance.end.receive.index, to: instance.published(.receive)
    ).filter { !$0.flags.contains(.offload) }.map(\.segment)
    let returned = instance.slots(
      .free, from: instance.taken(.free), to: instance.end.free.index
    ).map(\.segment)
    let withInstance = instance.state.held + received + returned
    #expect(Set(withInstance).count == withInstance.count, "at \(remains.point)")
    let owned = (0..<RecordMemory.segments).filter { path.ledger.owners[$0] == 2 }
    #expect(Set(withInstance) == Set(owned.map { UInt32(2 * $0) }), "at \(remains.point)")
    #expect(path.ledger.hostCount + owned.count == RecordMemory.segments)
    // Each packet is in one place.
    var isFirst = true
    let waiting = instance.slots(
      .transmit, from: instance.taken(.transmit), to: instance.end.transmit.index
    ).filter { slot in
      defer { isFirst = !slot.flags.contains(.more) }
      return isFirst
    }.map(\.tag)
    let done = instance.slots(
      .completion, from: instance.end.completion.index, to: instance.published(.completion)
    ).map(\.tag)
    let tags = waiting + done + path.record.outstandingTags()
    #expect(Set(tags).count == tags.count, "at \(remains.point)")
    #expect(Set(tags) == instance.state.outstanding, "at \(remains.point)")
    #expect(path.inFlight == path.record.outstandingTags().count)
    // And it goes on.
    for _ in 0..<12 {
      path.queuePair.arriving = 8
      path.queuePair.leaving = 100
      _ = try path.turn()
      try instance.take()
      instance.giveBack(.max)
    }
    path.queuePair.arriving = 0
    _ = try path.turn()
    #expect(instance.state.outstanding.isEmpty && instance.wrongTags.isEmpty)
    #expect(path.inFlight == 0 && path.ledger.instanceCount == instance.state.held.count)
  }

  /// The same for one instance among many: segments that the host fills, packets that the instance sends in place.
  @Test func anInstanceOfManyIsTakenOverAtEachStep() throws {
    var states = 0
    for seed in 1...2 as ClosedRange<UInt64> {
      var dice = Dice(seed)
      let instance = try PlayedInstance(firstUnit: Self.firstUnit)
      let memory = RecordMemory()
      let arena = UnsafeMutableRawPointer.allocate(byteCount: 2 << 20, alignment: 4096)
      arena.initializeMemory(as: UInt8.self, repeating: 0, count: 2 << 20)
      defer { arena.deallocate() }
      var seen: [Remains] = []
      var port = try port(instance, memory, arena) { point in
        seen.append(Remains(instance, memory, at: point))
      }
      var flights: [HeaderSlots.Flight] = []
      for _ in 0..<16 {
        instance.send(dice.roll(20))
        if dice.roll(3) > 0 { try instance.take() }
        instance.giveBack(dice.roll(40))
        seen.removeAll()
        try turn(&port, arena, arriving: dice.roll(20), leaving: dice.roll(20), &flights)
        let all = Remains.all(seen)
        for remains in all { try check(remains, arena) }
        states += all.count
      }
    }
    #expect(states > 1000)
  }

  private func port(
    _ instance: PlayedInstance, _ memory: RecordMemory, _ arena: UnsafeMutableRawPointer,
    _ watch: ((PathRecord.CrashPoint) -> Void)? = nil
  ) throws -> InstancePort {
    var record = memory.record
    record.atCrashPoint = watch
    var ledger = memory.ledger(record)
    var end = HostEnd(
      instance.memory, queue: 0, instanceDoorbell: -1, from: try record.reconcile(&ledger))
    let isTakenOver = end.takeOver()
    #expect(isTakenOver)
    return InstancePort(
      index: 0, channel: end, end: instance.memory.end, ledger: ledger, arena: arena, base: 0,
      transmitPart: Self.transmitPart, registeredPart: 0..<0, weight: 1, segmentLimit: .max,
      record: record)
  }

  /// What a turn of the host does with an instance, without the packets' bytes.
  private func turn(
    _ port: inout InstancePort, _ arena: UnsafeMutableRawPointer, arriving: Int, leaving: Int,
    _ flights: inout [HeaderSlots.Flight]
  ) throws {
    var offence = EndReason.none
    _ = port.takeReturnedSegments(&offence)
    let packet = UnsafeMutablePointer<Descriptor>.allocate(capacity: 3)
    packet.initialize(repeating: Descriptor(segment: 0, length: 60), count: 3)
    defer { packet.deallocate() }
    packet[0] = Offload().slot
    packet[1].flags = .more
    for number in 0..<arriving
    where port.ledger.hostCount >= 2 && port.channel.receive.room() >= port.delivering.count + 3 {
      if number % 3 == 0 {
        port.copy(packet, 3, from: arena)
      } else {
        port.copy(packet + 2, 1, from: arena)
      }
    }
    port.pushDelivered()
    _ = port.takePackets(&offence)
    while port.nextToSend < port.sending.count,
      port.inFlightCount + port.completed.count < InstancePort.maximumInFlight
    {
      guard let last = port.sending.endOfPacket(from: port.nextToSend) else { break }
      flights.append(
        HeaderSlots.Flight(
          instance: 0, epoch: 0, tag: port.sending[port.nextToSend].tag,
          segment: HeaderSlots.noSegment))
      port.inFlight.0 += 1
      port.nextToSend = last + 1
    }
    for _ in 0..<min(leaving, flights.count) { port.land(flights.remove(at: flights.count / 2)) }
    _ = port.handBack()
    #expect(offence == .none)
  }

  private func check(_ remains: Remains, _ arena: UnsafeMutableRawPointer) throws {
    let instance = try PlayedInstance(remains, firstUnit: Self.firstUnit)
    let memory = RecordMemory(remains.record)
    var port = try port(instance, memory, arena)
    let received = instance.slots(
      .receive, from: instance.end.receive.index, to: instance.published(.receive)
    ).filter { !$0.flags.contains(.offload) }.map(\.segment)
    let returned = instance.slots(
      .free, from: instance.taken(.free), to: instance.end.free.index
    ).map(\.segment)
    let withInstance = instance.state.held + received + returned
    let owned = (0..<RecordMemory.segments).filter { port.ledger.owners[$0] == 2 }
    #expect(withInstance.sorted() == owned.map { UInt32(2 * $0) }, "at \(remains.point)")
    #expect(port.ledger.hostCount + owned.count == RecordMemory.segments)
    var flights: [HeaderSlots.Flight] = []
    for _ in 0..<12 {
      try turn(&port, arena, arriving: 4, leaving: .max, &flights)
      try instance.take()
      instance.giveBack(.max)
    }
    try turn(&port, arena, arriving: 0, leaving: .max, &flights)
    try instance.take()
    #expect(instance.state.outstanding.isEmpty && instance.wrongTags.isEmpty)
    #expect(port.owesNothing && port.ledger.instanceCount == instance.state.held.count)
  }

  /// A host that failed may have written anything: that is said, and ends nothing else.
  @Test func aRecordThatMakesNoSenseIsAnError() throws {
    func refusal(_ spoil: (UnsafeMutableRawPointer, borrowing PathRecord) -> Void) -> RecordError? {
      let memory = RecordMemory()
      let record = memory.record
      spoil(memory.start, record)
      var ledger = memory.ledger(record)
      do throws(RecordError) {
        _ = try record.reconcile(&ledger)
        return nil
      } catch {
        return error
      }
    }
    func word(_ value: UInt64) -> (UnsafeMutableRawPointer, borrowing PathRecord) -> Void {
      { bytes, _ in bytes.storeBytes(of: value, as: UInt64.self) }
    }
    #expect(refusal { _, _ in } == nil)
    #expect(
      refusal {
        $0.storeBytes(of: 7, toByteOffset: 8, as: UInt64.self)
        _ = $1.segments
      } == .foreign(7))
    // No flow, no slots, more than a burst has, a place that the ring cannot be at.
    for value: UInt64 in [
      9 | 1 << 8 | 1 << 32, 1 | 0 << 8, 1 | 300 << 8 | 300 << 32, 1 | 2 << 8 | 3 << 32,
    ] {
      #expect(refusal(word(value)) == .badHandOver(value))
    }
    #expect(refusal { _, record in record.ownerBytes[3] = 4 } == .noOwner)
    #expect(
      refusal { bytes, _ in bytes.storeBytes(of: 2, toByteOffset: 64 + 77, as: UInt8.self) }
        == .badTag(72))
    // A segment that does not exist is about to be given, and one that is the device's to come back.
    for flow in [1, 4] as [UInt64] {
      let error = refusal { bytes, record in
        var burst = record.burst(flow == 1 ? .receive : .free, capacity: 1)
        burst.append(Descriptor(segment: flow == 1 ? 1 << 20 : 2))
        record.ownerBytes[1] = 1
        bytes.storeBytes(of: flow | 1 << 8 | 1 << 32, as: UInt64.self)
      }
      #expect(error == .badSegment(flow == 1 ? 1 << 20 : 2))
    }
  }

  /// Whatever a host that failed has left there: the next one takes it over or refuses it, and never gives a segment twice.
  @Test func anyRecordIsTakenOverOrRefused() throws {
    var taken = 0
    for seed in 1...500 as ClosedRange<UInt64> {
      var dice = Dice(seed)
      let memory = RecordMemory()
      let record = memory.record
      let interesting = PathRecord.byteCount(segments: RecordMemory.segments)
      for _ in 0..<dice.roll(6) {
        let place = dice.roll(3) == 0 ? dice.roll(64) : dice.roll(interesting)
        memory.start.storeBytes(
          of: UInt8(truncatingIfNeeded: dice.roll(4)), toByteOffset: place, as: UInt8.self)
      }
      var ledger = memory.ledger(record)
      guard (try? record.reconcile(&ledger)) != nil else { continue }
      taken += 1
      var lent = Burst(capacity: 256)
      ledger.lend(upTo: 256, into: &lent)
      let segments = (0..<lent.count).map { lent[$0].segment }
      #expect(Set(segments).count == segments.count)
      #expect(lent.count + ledger.instanceCount == RecordMemory.segments)
    }
    #expect(taken > 50 && taken < 500)
  }
}
