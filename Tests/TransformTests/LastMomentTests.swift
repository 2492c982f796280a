import Driver
import Memory
import Testing
import Virtio
import VirtioNet
import VirtioNetDevice

/// A transform runs as often as packets reach the ring, whatever comes between.
@Suite struct LastMomentTests {
  typealias Pair = TransformingQueuePair<VirtioNetQueuePair, Mark>
  static let formats: [VirtioFeatures] = [[], .inOrder, .packedRing, [.packedRing, .inOrder]]

  private func pair(_ bench: Bench, _ driver: inout VirtioNet) -> Pair {
    TransformingQueuePair(driver.takeQueuePair(0), Mark(), arena: bench.arena)
  }

  /// Byte 20 of the packet in a slot that has not left.
  private func isUntouched(_ bench: Bench, _ slot: Descriptor) -> Bool {
    bench.arena.address.load(fromByteOffset: Int(slot.position) + 20, as: UInt8.self) == 0
  }

  @Test(arguments: formats) func aFullRingLeavesTheRestUntouchedUntilItIsTheirTurn(
    additional: VirtioFeatures
  ) throws {
    let bench = try Bench(additional)
    var driver = try VirtioNet(bench.resources())
    var pair = pair(bench, &driver)
    try driver.start()
    var sending = Burst(capacity: 256)
    var completed = Burst(capacity: 256)
    var placed = 0
    var done = 0
    for round in 0..<400 {
      while sending.room > 3 && placed < 2000 && placed - done < 900 {
        bench.place(
          bench.frame(placed), placed, cuts: placed % 5 == 0 ? [14, 18] : [], into: &sending)
        placed += 1
      }
      try pair.transmit(&sending)
      let sent = (pair.transform.runs, pair.statistics.sentPackets)
      #expect(sent.0 == Int(sent.1))
      for index in 0..<sending.count where sending[index].length == 64 {
        #expect(isUntouched(bench, sending[index]))
      }
      if round % 3 == 0 { while bench.device.step() {} }
      try pair.completeTransmit(into: &completed)
      done += completed.count
      completed.removeAll()
    }
    #expect(placed == 2000 && done == 2000 && pair.transform.runs == 2000)
    let expected = (0..<2000).map { number in
      var frame = bench.frame(number)
      frame[20] = 1
      return frame
    }
    let isSame = bench.wire.sent.map(\.frame) == expected
    #expect(isSame)
    #expect(bench.device.violations.first == [])
    driver.stop()
  }

  @Test func whatIsTakenBackIsNeverChanged() throws {
    let bench = try Bench()
    var driver = try VirtioNet(bench.resources(ringSize: 32))
    var pair = pair(bench, &driver)
    try driver.start()
    var queue = TransmitQueue(slots: 256)
    var burst = Burst(capacity: 64)
    var completed = Burst(capacity: 64)
    var cancelled: Set<Int> = []
    var late = 0
    var done = 0
    for number in 0..<900 {
      bench.place(bench.frame(number), number, cuts: number % 7 == 0 ? [30] : [], into: &burst)
      queue.append(&burst)
      let isTaken = burst.isEmpty
      #expect(isTaken)
      // Some at once, some a while later, when a few of them have left.
      for (victim, isDue) in [(number, number % 4 == 1), (number - 9, number % 10 == 9)]
      where isDue {
        if queue.cancel(UInt16(victim)) { cancelled.insert(victim) } else { late += 1 }
      }
      try queue.send(on: &pair)
      if number % 8 == 7 { while bench.device.step() {} }
      try pair.completeTransmit(into: &completed)
      for index in 0..<completed.count {
        #expect(!cancelled.contains(Int(completed[index].tag)))
      }
      done += completed.count
      completed.removeAll()
    }
    for _ in 0..<100 {
      try queue.send(on: &pair)
      while bench.device.step() {}
      try pair.completeTransmit(into: &completed)
      done += completed.count
      completed.removeAll()
    }
    let counts = (pair.transform.runs, queue.count, Int(queue.cancelled))
    #expect(counts.0 == 900 - cancelled.count && counts.1 == 0 && counts.2 == cancelled.count)
    #expect(cancelled.count > 200 && late > 10 && done == counts.0)
    for number in cancelled {
      #expect(bench.arena.address.load(fromByteOffset: 4096 * number + 20, as: UInt8.self) == 0)
    }
    #expect(bench.wire.sent.count == counts.0 && bench.wire.sent.allSatisfy { $0.frame[20] == 1 })
    driver.stop()
  }

  @Test func aDeviceThatGoesTakesChangedPacketsOnlyFromItsRing() throws {
    let bench = try Bench()
    var driver = try VirtioNet(bench.resources(ringSize: 32))
    var pair = pair(bench, &driver)
    try driver.start()
    var sending = Burst(capacity: 128)
    for number in 0..<100 { bench.place(bench.frame(number), number, into: &sending) }
    try pair.transmit(&sending)
    let onRing = 100 - sending.count
    #expect(pair.transform.runs == onRing && onRing > 0 && onRing < 100)
    driver.stop()
    var segments = Burst(capacity: 64)
    var back = Burst(capacity: 128)
    pair.takeBack(segments: &segments, packets: &back)
    let tags = Set((0..<back.count).map { back[$0].tag })
    #expect(tags == Set(0..<UInt16(onRing)))
    // The rest goes to the one that comes after it.
    let second = try Bench()
    second.arena.address.copyMemory(from: bench.arena.address, byteCount: bench.arena.byteCount)
    var newDriver = try VirtioNet(second.resources(ringSize: 256))
    var newPair = self.pair(second, &newDriver)
    try newDriver.start()
    try newPair.transmit(&sending)
    while second.device.step() {}
    let runs = (newPair.transform.runs, sending.count)
    #expect(runs == (100 - onRing, 0))
    #expect(second.wire.sent.count == runs.0 && second.wire.sent.allSatisfy { $0.frame[20] == 1 })
    newDriver.stop()
  }

  @Test func aBrokenRingChangesNothing() throws {
    let bench = try Bench()
    var driver = try VirtioNet(bench.resources())
    var pair = pair(bench, &driver)
    try driver.start()
    // Whatever the device may write: above all an index that it cannot have reached.
    bench.rings.address.initializeMemory(
      as: UInt8.self, repeating: 0x7f, count: bench.rings.byteCount)
    var sending = Burst(capacity: 64)
    var completed = Burst(capacity: 64)
    var isBroken = false
    do throws(DriverError) { try pair.completeTransmit(into: &completed) } catch { isBroken = true }
    for number in 0..<10 { bench.place(bench.frame(number), number, into: &sending) }
    try pair.transmit(&sending)
    let left = (sending.count, pair.transform.runs)
    #expect(isBroken && left == (10, 0))
    driver.stop()
  }

  @Test func whatTheDriverWouldRefuseIsCompletedUnchanged() throws {
    let bench = try Bench(withheld: .checksum)
    var driver = try VirtioNet(bench.resources())
    var pair = pair(bench, &driver)
    try driver.start()
    var sending = Burst(capacity: 256)
    var completed = Burst(capacity: 256)
    var done: [UInt16] = []
    for number in 0..<100 {
      // Too short, asks for what there is not, metadata of no kind, too many pieces; every fifth is good.
      let frame = bench.frame(number)
      switch number % 5 {
      case 0: bench.place(frame, number, into: &sending)
      case 1: bench.place(Array(frame.prefix(13)), number, into: &sending)
      case 2:
        bench.place(
          frame, number, metadata: Offload(needsChecksum: true, checksumStart: 34), into: &sending)
      case 3:
        let at = sending.count
        bench.place(frame, number, metadata: Offload(), into: &sending)
        sending[at].length = 7 << 16
      default:
        bench.place(frame, number, metadata: Offload(), into: &sending)
        sending.truncate(to: sending.count - 1)
        sending[sending.count - 1].flags.remove(.more)
      }
    }
    for _ in 0..<20 {
      try pair.transmit(&sending)
      while bench.device.step() {}
      try pair.completeTransmit(into: &completed)
      for index in 0..<completed.count { done.append(completed[index].tag) }
      completed.removeAll()
    }
    let statistics = pair.statistics
    #expect(done.count == 100 && Set(done).count == 100)
    #expect(
      pair.transform.runs == 20 && statistics.sentPackets == 20 && statistics.sendErrors == 80)
    #expect(bench.wire.sent.count == 20)
    driver.stop()
  }
}
