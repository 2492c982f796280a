import Capture
import Channel
import Glibc
import Memory
import Testing

@testable import Supervisor

extension ServerTests {
  /// What is asked of a run's captures over its socket, and what a driver host's threads make of it.
  @Suite final class CaptureServiceTests {
    private let captures: CaptureService
    private let served: Served
    /// A queue thread's side, over memory in place of packets.
    private let tap: CaptureTap
    private let area: CaptureArea
    private let readers: CaptureReaders
    private let packets = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 64)

    init() throws {
      captures = try CaptureService(queues: 2)
      served = try Served(captures: captures)
      let own = captures.descriptors
      packets.initializeMemory(as: UInt8.self, repeating: 7, count: 4096)
      area = try CaptureArea(adopting: dup(own.area), queues: 2, isWritable: true)
      readers = try CaptureReaders(adopting: dup(own.readers), queues: 2)
      tap = CaptureTap(
        area: area, readers: readers, queue: 1, packets: packets, byteCount: 4096)
    }

    deinit { packets.deallocate() }

    private func peer(_ messages: String...) -> Peer {
      let peer = served.peer()
      for message in messages { peer.say(message) }
      served.step()
      return peer
    }

    private static let all =
      "capture points=wire-rx,channel-rx:one snap=100 ring=\(1 << 19) precise=no"

    private func reader(_ peer: Peer) throws -> CaptureReader {
      let (message, descriptors) = try #require(peer.nextWithDescriptors())
      #expect(message.word == "capturing" && descriptors.count == 2)
      // Nobody writes to what a queue thread writes but itself.
      #expect(fcntl(descriptors[0], F_GETFL) & O_ACCMODE == O_RDONLY)
      return CaptureReader(
        area: try CaptureArea(adopting: descriptors[0], queues: 2, isWritable: false),
        readers: try CaptureReaders(adopting: descriptors[1], queues: 2),
        slot: try #require(message.number("slot")),
        session: try #require(message.number("session")),
        ringBytes: try #require(message.number("ring")))
    }

    private func slot(_ peer: Peer) throws -> Int {
      let message = try #require(peer.next())
      #expect(message.word == "capturing")
      return try #require(message.number("slot"))
    }

    /// A packet of 200 bytes at the wire, one for the instance in slot 0, and one for that in slot 1.
    private func traffic() {
      if tap.hasUpdate { tap.takeUpdate() }
      guard tap.isOn else { return }
      var burst = Burst(capacity: 1)
      burst.append(Descriptor(segment: 0, offset: 64, length: 200))
      tap.beginBurst()
      tap.capture(.wireReceive, burst)
      for index in UInt32(0)..<2 {
        tap.capture(
          .channelReceive, burst.start, 1, number: 0, instance: 1 << 8 | index, base: 0,
          rule: CaptureRecord.noRule)
      }
    }

    @Test func aCaptureIsItsConnections() throws {
      let one = try served.attached("one")
      let peer = peer(Self.all)
      var reader = try reader(peer)
      #expect(peer.next().map { "\($0.word) \($0.rest)" }?.hasSuffix("name=one") == true)
      traffic()
      var records: [CaptureRecord] = []
      reader.read(queue: 1) { record, bytes in
        records.append(record)
        #expect(bytes.count == 100 && bytes.allSatisfy { $0 == 7 })
      }
      #expect(records.map(\.point) == [CapturePoint.wireReceive, .channelReceive].map(\.rawValue))
      #expect(records.allSatisfy { $0.packetBytes == 200 })
      #expect(records.last.map { $0.instance & 63 } == 0)
      // One more of that name: it is meant too, and one of another name is not.
      let again = try served.attached("one")
      #expect(peer.next()?.word == "instance")
      traffic()
      #expect(reader.read(queue: 1) { _, _ in } == 3)
      let counts = Dictionary(uniqueKeysWithValues: captures.counters.map { ($0.name, $0.value) })
      #expect(counts["captures"] == 1 && counts["capture_0_written"] == 5)
      #expect(counts["capture_0_lost"] == 0)
      peer.leave()
      served.step()
      #expect(captures.counters.map(\.value) == [0])
      if tap.hasUpdate { tap.takeUpdate() }
      #expect(!tap.isOn)
      // What was written while it ended is given back.
      served.step(after: 500)
      _ = (one, again)
    }

    @Test func thereAreSoMany() throws {
      let peers = (0..<CaptureArea.slots).map { _ in self.peer(Self.all) }
      let slots = try peers.map(slot)
      #expect(Set(slots).count == CaptureArea.slots)
      #expect(peer(Self.all).refusal() == "capture")
      #expect(captures.counters.first?.value == UInt64(CaptureArea.slots))
      peers[2].leave()
      served.step()
      #expect(try slot(peer(Self.all)) == slots[2])
    }

    @Test func rulesAreNamedBeforeAPacketCanMeetThem() throws {
      captures.note(RuleNames(first: 0, names: ["old"]))
      captures.note(RuleNames(first: 1, names: ["a", "b"]))
      let peer = peer(Self.all)
      _ = try slot(peer)
      captures.note(RuleNames(first: 3, names: ["c"]))
      var known = KnownRules()
      while let (message, descriptors) = peer.nextWithDescriptors() {
        if let names = RuleNames(message, descriptors) { known.note(names) }
        for descriptor in descriptors { close(descriptor) }
      }
      #expect((0...4).map { known[$0] } == ["old", "a", "b", "c", nil])
    }

    @Test(arguments: [
      "capture", "capture points=wire-rx", "capture points= snap=1 ring=524288",
      "capture points=nowhere snap=1 ring=524288", "capture points=wire-rx:one snap=1 ring=524288",
      "capture points=wire-rx snap=0 ring=524288", "capture points=wire-rx snap=262145 ring=524288",
      "capture points=wire-rx snap=1 ring=524287", "capture points=wire-rx snap=1 ring=262144",
      "capture points=wire-rx snap=1 ring=2147483648", "filter", "filter code=", "filter code=123",
      "filter code=+000000000000000", "filter code=\(String(repeating: "g", count: 16))",
    ]) func whatMakesNoSenseIsRefused(request: String) {
      #expect(peer(request).refusal() == "capture", "\(request)")
      #expect(captures.counters.map(\.value) == [0])
      // The next one is served.
      #expect(peer(Self.all).next()?.word == "capturing")
    }

    @Test func filtersAreCheckedBeforeAQueueThreadHasThem() throws {
      let accept = FilterText.text([.accept(262_144)])
      // A jump behind the end; more than there may be; a division by nothing.
      let jump = FilterText.text([
        .init(code: 5, operand: 9), .accept(1),
      ])
      #expect(peer("filter code=\(jump)", Self.all).refusal() == "capture")
      let division = FilterText.text([.init(code: 0x34, operand: 0), .accept(1)])
      #expect(peer("filter code=\(division)", Self.all).refusal() == "capture")
      let many = String(repeating: accept, count: 1000)
      let count = FilterProgram.maximumInstructions / 1000 + 1
      let greedy = served.peer()
      for _ in 0..<count { greedy.say("filter code=\(many)") }
      served.step()
      #expect(greedy.refusal() == "capture")
      // In two messages it is one program.
      let none = FilterText.text([.init(code: 0x28, operand: 12)])
      let peer = peer(
        "filter code=\(none)", "filter code=\(FilterText.text([.accept(0)]))", Self.all)
      var reader = try reader(peer)
      traffic()
      #expect(reader.read(queue: 1) { _, _ in } == 0)
      #expect(reader.counts(.wireReceive).seen == 1)
    }

    /// What a filter is as text, it is when it is read again.
    @Test func filtersAreReadAsTheyAreWritten() {
      let program = (0..<300).map { _ in
        FilterInstruction(
          code: .random(in: 0...(.max)), jumpTrue: .random(in: 0...(.max)),
          jumpFalse: .random(in: 0...(.max)), operand: .random(in: 0...(.max)))
      }
      #expect(FilterText.instructions(FilterText.text(program)) == program)
    }
  }
}
