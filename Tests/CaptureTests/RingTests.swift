import CLinux
import Glibc
import Memory
import Testing

@testable import Capture

/// A queue thread's tap and a reader over one area, in one process.
struct CaptureBench: ~Copyable {
  let area: CaptureArea
  let readers: CaptureReaders
  let packets: UnsafeMutableRawPointer
  var tap: CaptureTap
  var order: CaptureOrder

  static let packetBytes = 1 << 20

  init(ringSize: UInt32 = 65536, program: [FilterInstruction] = [.accept(262_144)]) throws {
    let area = try CaptureArea(queues: 1)
    let readers = try CaptureReaders(queues: 1)
    var order = CaptureOrder()
    order.session = 1
    order.ringSize = ringSize
    for point in CapturePoint.allCases { order.want(point) }
    order.receivers = .max
    order.senders = .max
    try area.begin(&order, program: program, slot: 0)
    packets = .allocate(byteCount: Self.packetBytes, alignment: 4096)
    for byte in 0..<Self.packetBytes {
      packets.storeBytes(
        of: UInt8(truncatingIfNeeded: byte &* 31 &+ byte >> 8), toByteOffset: byte, as: UInt8.self)
    }
    tap = CaptureTap(
      area: area, readers: readers, queue: 0, packets: packets, byteCount: Self.packetBytes)
    self.order = order
    self.area = area
    self.readers = readers
  }

  deinit { packets.deallocate() }

  func reader(session: UInt64 = 1) throws -> CaptureReader {
    CaptureReader(
      area: try CaptureArea(
        adopting: area.readOnlyDescriptor(), queues: 1, isWritable: false),
      readers: try CaptureReaders(adopting: dup(readers.descriptor), queues: 1), slot: 0,
      session: session, ringBytes: Int(order.ringSize))
  }

  func capture(_ burst: borrowing Burst, _ point: CapturePoint = .wireReceive) {
    tap.beginBurst()
    tap.capture(point, burst)
  }

  func bytes(_ range: Range<Int>) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: packets + range.lowerBound, count: range.count))
  }
}

@Suite struct RingTests {
  @Test func nothingIsCapturedWithoutAnOrder() throws {
    var bench = try CaptureBench()
    #expect(bench.tap.hasUpdate && !bench.tap.isOn)
    bench.tap.takeUpdate()
    #expect(!bench.tap.hasUpdate && bench.tap.isOn)
    bench.area.end(slot: 0)
    #expect(bench.tap.hasUpdate)
    bench.tap.takeUpdate()
    #expect(!bench.tap.isOn)
    #expect(!CaptureTap.none.hasUpdate && !CaptureTap.none.isOn)
    bench.order.session = 2
  }

  /// Only what is kept is looked up.
  @Test func recordsSayWhichRuleMatched() throws {
    let bench = try CaptureBench(program: [
      .init(code: 0x80, operand: 0), .init(code: 0x35, jumpTrue: 0, jumpFalse: 1, operand: 100),
      .accept(262_144), .accept(0),
    ])
    bench.tap.takeUpdate()
    var burst = Burst(capacity: 16)
    for length in [99, 100, 101] as [UInt32] {
      burst.append(Descriptor(segment: length, length: length))
    }
    var asked = 0
    withUnsafeMutablePointer(to: &asked) { asked in
      // The number is the packet's length; how often it is asked for is counted.
      let finder = RuleFinder(UnsafeRawPointer(asked)) { context, frame, byteCount in
        UnsafeMutableRawPointer(mutating: context).assumingMemoryBound(to: Int.self).pointee += 1
        return UInt32(byteCount)
      }
      bench.tap.capture(.wireReceive, burst, rules: finder)
    }
    bench.tap.capture(
      .channelReceive, burst.start + 2, 1, number: 2, instance: 257, base: 0, rule: 7)
    var reader = try bench.reader()
    var rules: [UInt32] = []
    reader.read(queue: 0) { record, _ in rules.append(record.rule) }
    #expect(rules == [100, 101, 7] && asked == 2)
    #expect(
      bench.area.counts(slot: 0, session: 1) == CaptureCounts(seen: 4, matched: 3, dropped: 0))
    #expect(bench.area.counts(slot: 0, session: 2) == CaptureCounts())
  }

  /// Packets of one and of several pieces, with and without metadata.
  @Test func packetsComeWhole() throws {
    let bench = try CaptureBench()
    bench.tap.takeUpdate()
    var burst = Burst(capacity: 16)
    burst.append(Descriptor(segment: 0, length: 100))
    burst.append(
      Offload(
        segmentation: .tcp4, needsChecksum: true, segmentSize: 1460, checksumStart: 34,
        checksumOffset: 16
      ).slot)
    burst.append(Descriptor(segment: 4, offset: 3, length: 60, flags: .more))
    burst.append(Descriptor(segment: 8, length: 5, flags: .more))
    burst.append(Descriptor(segment: 10, length: 700))
    // A piece that lies elsewhere is not read.
    burst.append(Descriptor(segment: 1 << 30, length: 100))
    bench.capture(burst)
    var reader = try bench.reader()
    var records: [CaptureRecord] = []
    var packets: [[UInt8]] = []
    let count = reader.read(queue: 0) {
      records.append($0)
      packets.append(Array($1))
    }
    #expect(count == 2)
    #expect(
      packets == [
        bench.bytes(0..<100),
        bench.bytes(4099..<4159) + bench.bytes(8192..<8197) + bench.bytes(10240..<10940),
      ])
    #expect(records[0].checksumStart == 0 && records[1].checksumStart == 34)
    #expect(records[1].checksumOffset == 16 && records[1].segmentBytes == 1460)
    #expect(records[0].number != records[1].number && records[0].time == records[1].time)
    #expect(records[0].rule == CaptureRecord.noRule && records[0].packetBytes == 100)
    #expect(abs(Int64(records[0].time) - Int64(clock_nanoseconds(CLOCK_REALTIME))) < 10_000_000_000)
    #expect(
      reader.counts(.wireReceive) == CaptureCounts(seen: 3, matched: 2, dropped: 0))
    let more = reader.read(queue: 0) { _, _ in }
    #expect(more == 0)
  }

  /// A filter that looks at a byte of a later piece sees the packet as a whole; one that takes less cuts it.
  @Test func filtersSeeAllPieces() throws {
    let wanted = 31 &* 1025 &+ 1025 >> 8 & 0xff
    let bench = try CaptureBench(program: [
      .init(code: 0x30, operand: 65),
      .init(code: 0x15, jumpTrue: 0, jumpFalse: 1, operand: UInt32(wanted & 0xff)), .accept(70),
      .accept(0),
    ])
    bench.tap.takeUpdate()
    var burst = Burst(capacity: 4)
    burst.append(Descriptor(segment: 0, length: 64, flags: .more))
    burst.append(Descriptor(segment: 1, length: 64))
    burst.append(Descriptor(segment: 1, length: 64))
    bench.capture(burst)
    var reader = try bench.reader()
    var packets: [[UInt8]] = []
    reader.read(queue: 0) {
      packets.append(Array($1))
      #expect($0.packetBytes == 128)
    }
    #expect(packets == [bench.bytes(0..<64) + bench.bytes(1024..<1030)])
  }

  /// Who reads slowly loses packets, each of which is counted; what is read is whole and in order.
  @Test func aFullRingCountsWhatItLoses() throws {
    let bench = try CaptureBench(ringSize: 8192)
    bench.tap.takeUpdate()
    var reader = try bench.reader()
    var numbers = Numbers(state: 3)
    var sent = 0
    var got = 0
    for round in 0..<2000 {
      var burst = Burst(capacity: 32)
      for _ in 0..<Int.random(in: 1...20, using: &numbers) {
        sent += 1
        burst.append(
          Descriptor(
            segment: UInt32.random(in: 0..<900, using: &numbers),
            length: UInt32.random(in: 1...1500, using: &numbers)))
      }
      bench.capture(burst)
      if round % 3 == 0 { continue }
      reader.read(queue: 0, limit: Int.random(in: 1...10, using: &numbers)) { record, bytes in
        got += 1
        #expect(Int(record.capturedBytes) == bytes.count)
        #expect(bytes.count > 1 ? bytes[1] &- bytes[0] == 31 || bytes[1] &- bytes[0] == 32 : true)
      }
    }
    got += reader.read(queue: 0) { _, _ in }
    let counts = reader.counts(.wireReceive)
    #expect(counts.seen == UInt64(sent) && counts.matched == UInt64(sent))
    #expect(counts.dropped > 0 && got > 1000)
    #expect(got + Int(counts.dropped) == sent)
    #expect(reader.brokenRecords == 0)
  }

  /// Whatever a capture process writes as its place, the host stays inside the ring.
  @Test func aHostileReaderOnlyHurtsItsCapture() throws {
    let bench = try CaptureBench(ringSize: 8192)
    bench.tap.takeUpdate()
    var numbers = Numbers(state: 5)
    let behind = bench.area.ring(0, 0) + 4096 + 8192
    let before = Array(UnsafeRawBufferPointer(start: behind, count: 4096))
    for _ in 0..<3000 {
      let word: UInt64 =
        Bool.random(using: &numbers)
        ? UInt64.random(in: 0...UInt64.max, using: &numbers)
        : UInt64.random(in: 0...20_000, using: &numbers)
      relaxed_store64(bench.readers.word(0, 0), word)
      var burst = Burst(capacity: 8)
      for _ in 0..<8 {
        burst.append(Descriptor(segment: 1, length: UInt32.random(in: 1...2000, using: &numbers)))
      }
      bench.capture(burst)
    }
    #expect(Array(UnsafeRawBufferPointer(start: behind, count: 4096)) == before)
  }

  /// A host that writes nonsense costs the reader that, and no more.
  @Test func aReaderBelievesNoRecord() throws {
    let bench = try CaptureBench(ringSize: 8192)
    bench.tap.takeUpdate()
    var burst = Burst(capacity: 8)
    burst.append(Descriptor(segment: 1, length: 100))
    var numbers = Numbers(state: 9)
    var reader = try bench.reader()
    let page = bench.area.ring(0, 0)
    for _ in 0..<2000 {
      bench.capture(burst)
      let place = Int.random(in: 0..<2048, using: &numbers) * 4
      (page + 4096 + place).storeBytes(
        of: UInt32.random(in: 0...UInt32.max, using: &numbers), as: UInt32.self)
      reader.read(queue: 0) { #expect($1.count <= 8192 && Int($0.capturedBytes) == $1.count) }
    }
    #expect(reader.brokenRecords > 0)
  }

  /// Another host goes on where the one before ended, and counts on.
  @Test func theNextHostGoesOn() throws {
    let bench = try CaptureBench()
    bench.tap.takeUpdate()
    var burst = Burst(capacity: 8)
    burst.append(Descriptor(segment: 1, length: 100))
    bench.capture(burst)
    var reader = try bench.reader()
    let first = reader.read(queue: 0) { _, _ in }
    #expect(first == 1)
    bench.capture(burst)
    let next = CaptureTap(
      area: bench.area, readers: bench.readers, queue: 0, packets: bench.packets,
      byteCount: CaptureBench.packetBytes)
    #expect(next.hasUpdate)
    next.takeUpdate()
    next.beginBurst()
    next.capture(.wireReceive, burst)
    var last: [[UInt8]] = []
    reader.read(queue: 0) { last.append(Array($1)) }
    #expect(last == [bench.bytes(1024..<1124), bench.bytes(1024..<1124)])
    #expect(reader.counts(.wireReceive).matched == 3)
  }

  /// Points that nobody wants, and instances that are not meant.
  @Test func onlyWhatIsWantedIsCaptured() throws {
    var bench = try CaptureBench()
    bench.order.points = 0
    bench.order.want(.channelReceive)
    bench.order.receivers = 1 << 3
    bench.area.change(bench.order, slot: 0)
    bench.tap.takeUpdate()
    var burst = Burst(capacity: 8)
    burst.append(Descriptor(segment: 1, length: 100))
    for point in CapturePoint.allCases { bench.capture(burst, point) }
    for instance: UInt32 in [0x102, 0x103, 0x203] {
      bench.tap.capture(
        .channelReceive, burst.start, 1, number: 5, instance: instance, base: 1024)
    }
    var reader = try bench.reader()
    var seen: [UInt32] = []
    reader.read(queue: 0) {
      seen.append($0.instance)
      #expect($0.point == CapturePoint.channelReceive.rawValue)
      #expect(Array($1) == bench.bytes(2048..<2148))
    }
    #expect(seen == [0x103, 0x203])
    #expect(reader.counts(.channelReceive, instance: 3).matched == 2)
  }

  /// Memory that a capture used is the system's again.
  @Test func anEndedCaptureHoldsNoMemory() throws {
    let bench = try CaptureBench(ringSize: 1 << 20)
    var status = stat()
    #expect(fstat(bench.area.descriptor, &status) == 0)
    #expect(status.st_blocks * 512 > 1 << 20)
    bench.area.end(slot: 0)
    bench.area.empty(0)
    #expect(fstat(bench.area.descriptor, &status) == 0)
    #expect(status.st_blocks * 512 < 65536)
  }

  /// A read-only descriptor gives nobody a way to write.
  @Test func aCaptureCannotWriteTheRings() throws {
    let bench = try CaptureBench()
    let descriptor = try bench.area.readOnlyDescriptor()
    defer { close(descriptor) }
    #expect(linux_mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0) == nil)
    #expect(errno == EACCES)
  }
}
