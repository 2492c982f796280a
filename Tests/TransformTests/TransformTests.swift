import CLinux
import Crypto
import Driver
import DriverConformance
import Glibc
import Memory
import PacketSeal
import Testing
import Virtio
import VirtioNet
import VirtioNetDevice
import Wire

/// The one's complement sum as RFC 1071 writes it.
private func naiveSum(_ bytes: ArraySlice<UInt8>) -> UInt32 {
  var sum: UInt32 = 0
  for (index, byte) in bytes.enumerated() { sum += UInt32(byte) << (index % 2 == 0 ? 8 : 0) }
  while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
  return sum
}

@Suite struct TransformTests {
  /// Sends what is in the burst to its end.
  private func send<T: TransmitTransform & ~Copyable>(
    _ burst: inout Burst, _ pair: inout TransformingQueuePair<VirtioNetQueuePair, T>, _ bench: Bench
  ) throws -> Int {
    var completed = Burst(capacity: 256)
    for _ in 0..<20 where !burst.isEmpty {
      try pair.transmit(&burst)
      while bench.device.step() {}
      try pair.completeTransmit(into: &completed)
    }
    return completed.count
  }

  @Test func checksumsAreCompletedForADeviceThatDoesNot() throws {
    let bench = try Bench(withheld: .checksum)
    let plain = try VirtioNet(bench.resources())
    let offered = plain.interface.offloads.contains(.transmitChecksum)
    #expect(!offered)
    var driver = SoftwareChecksumDriver(plain, arena: bench.arena)
    let interface = driver.interface
    #expect(interface.offloads.contains(.transmitChecksum))
    var pair = driver.takeQueuePair(0)
    try driver.start()
    var random = SystemRandomNumberGenerator()
    for _ in 0..<30 {
      var expected: [[UInt8]] = []
      var burst = Burst(capacity: 256)
      for number in 0..<10 {
        let count = Int.random(in: 60...1514, using: &random)
        var frame = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
        let start = Int.random(in: 14..<50, using: &random)
        let offset = Int.random(in: 0...8, using: &random)
        // One frame whose sum is 0xffff: its checksum is not 0.
        if number == 0 { for at in start..<count { frame[at] = 0xff } }
        var cuts = Set((0..<number % 5).map { _ in Int.random(in: 1..<count, using: &random) })
        // The field itself in two pieces.
        if number == 3 { cuts.insert(start + offset + 1) }
        bench.place(
          frame, number, cuts: cuts.sorted(),
          metadata: Offload(
            needsChecksum: true, checksumStart: UInt16(start), checksumOffset: UInt16(offset)),
          into: &burst)
        let sum = ~UInt16(truncatingIfNeeded: naiveSum(frame[start...]))
        let checksum = sum == 0 ? 0xffff : sum
        frame[start + offset] = UInt8(checksum >> 8)
        frame[start + offset + 1] = UInt8(truncatingIfNeeded: checksum)
        expected.append(frame)
      }
      bench.wire.sent = []
      let done = try send(&burst, &pair, bench)
      let isSame = bench.wire.sent.map(\.frame) == expected
      #expect(isSame && done == 10)
    }
    // The device was never asked.
    #expect(bench.wire.sent.allSatisfy { $0.header.prefix(10).allSatisfy { $0 == 0 } })
    let completed = pair.transform.completed
    #expect(completed == 300)
    // A place that is not in the packet.
    var burst = Burst(capacity: 4)
    bench.place(
      bench.frame(1), 1,
      metadata: Offload(needsChecksum: true, checksumStart: 60, checksumOffset: 3), into: &burst)
    bench.wire.sent = []
    let done = try send(&burst, &pair, bench)
    let errors = pair.statistics.sendErrors
    #expect(done == 1 && bench.wire.sent.isEmpty && errors == 1)
    #expect(bench.device.violations.first == [])
    driver.stop()
  }

  @Test func aDeviceThatDoesChecksumsIsLeftToDoThem() throws {
    let bench = try Bench()
    var driver = try SoftwareChecksumDriver<VirtioNet>(bench.resources())
    var pair = driver.takeQueuePair(0)
    try driver.start()
    var burst = Burst(capacity: 4)
    bench.wire.carriesOffloads = true
    bench.place(
      bench.frame(1), 1,
      metadata: Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 6), into: &burst)
    try pair.transmit(&burst)
    while bench.device.step() {}
    let completed = pair.transform.completed
    #expect(completed == 0 && bench.wire.sent.count == 1)
    driver.stop()
  }

  /// The driver with software checksums is a driver like any other.
  @Test(arguments: ConformanceSuite<SoftwareChecksumDriver<VirtioNet>>.checks.map(\.name))
  func conforms(check: String) {
    let results = ConformanceSuite<SoftwareChecksumDriver<VirtioNet>>.run(filter: check) {
      let wire = MemoryWire()
      var options = VirtioNetDevice.Options()
      options.mtu = 9000
      options.queuePairs = 2
      options.withheld = .checksum
      return ModelBench(VirtioNetDevice(wire: wire, options: options), wire: wire)
    }
    #expect(results.failures == [])
    #expect(results.passed.count + results.notPossible.count == 1)
  }

  @Test func aTimeStampIsOfTheMomentThatThePacketLeaves() throws {
    let bench = try Bench()
    var driver = try VirtioNet(bench.resources())
    // A sum that is made after the time is in the packet.
    var pair = TransformingQueuePair(
      driver.takeQueuePair(0),
      TransformSequence(TimeStamp(at: 37, isMonotonic: true), then: InternetChecksum()),
      arena: bench.arena)
    try driver.start()
    var burst = Burst(capacity: 16)
    for number in 0..<4 {
      bench.place(
        bench.frame(number), number, cuts: number == 1 ? [40] : [],
        metadata: Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 16),
        into: &burst)
    }
    bench.place(Array(bench.frame(9).prefix(44)), 9, into: &burst)
    usleep(2000)
    let before = monotonic_nanoseconds()
    let done = try send(&burst, &pair, bench)
    let after = monotonic_nanoseconds()
    #expect(done == 5)
    for (number, sent) in bench.wire.sent.prefix(4).enumerated() {
      let time = sent.frame[37..<45].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      #expect(time >= before && time <= after)
      // The sum is that of the packet with its time, and with what was in the field before.
      var summed = sent.frame
      summed.replaceSubrange(50..<52, with: bench.frame(number)[50..<52])
      let sum = ~UInt16(truncatingIfNeeded: naiveSum(summed[34...]))
      #expect(UInt16(sent.frame[50]) << 8 | UInt16(sent.frame[51]) == sum)
    }
    #expect(bench.wire.sent[4].frame == Array(bench.frame(9).prefix(44)))
    let stamped = pair.transform.first.stamped
    #expect(stamped == 4)
    driver.stop()
  }

  @Test func sealedPacketsOpenAndWhatCannotBeSealedDoesNotLeave() throws {
    let bench = try Bench()
    var driver = try VirtioNet(bench.resources())
    let key = SymmetricKey(size: .bits256)
    var pair = TransformingQueuePair(
      driver.takeQueuePair(0), PacketSeal(key: key, clearBytes: 14), arena: bench.arena)
    try driver.start()
    var burst = Burst(capacity: 64)
    var payloads: [[UInt8]] = []
    for number in 0..<12 {
      let payload = (0..<number * 100).map { UInt8(truncatingIfNeeded: $0 * 7 + number) }
      payloads.append(payload)
      let frame =
        Array(bench.frame(0).prefix(14)) + [UInt8](repeating: 0, count: 8) + payload
        + [UInt8](repeating: 0, count: 16)
      bench.place(frame, number, cuts: number % 3 == 2 ? [20, 50] : [], into: &burst)
    }
    // No space for the tag.
    bench.place(Array(bench.frame(3).prefix(37)), 90, into: &burst)
    let done = try send(&burst, &pair, bench)
    #expect(done == 13 && bench.wire.sent.count == 12)
    for (number, sent) in bench.wire.sent.enumerated() {
      let opened = PacketSeal.open(sent.frame, key: key, clearBytes: 14)
      #expect(opened == payloads[number])
      var changed = sent.frame
      changed[number % 14] ^= 1
      let forged = PacketSeal.open(changed, key: key, clearBytes: 14)
      #expect(forged == nil)
    }
    let (errors, sequence) = (pair.statistics.sendErrors, pair.transform.sequence)
    #expect(errors == 1 && sequence == 12)
    driver.stop()
  }

  @Test func piecesOutsideTheArenaAreNeitherReadNorSent() throws {
    let bench = try Bench()
    var driver = try VirtioNet(bench.resources())
    var pair = TransformingQueuePair(driver.takeQueuePair(0), Mark(), arena: bench.arena)
    try driver.start()
    var burst = Burst(capacity: 4)
    burst.append(Descriptor(segment: .max, offset: .max, length: 64, tag: 1))
    burst.append(Descriptor(segment: 4095, offset: 1000, length: 64, tag: 2))
    let done = try send(&burst, &pair, bench)
    let runs = pair.transform.runs
    #expect(done == 2 && runs == 0 && bench.wire.sent.isEmpty)
    driver.stop()
  }
}
