import Testing

@testable import Memory

@Suite struct AggregateTests {
  private func burst(_ slots: [Descriptor]) -> Burst {
    var burst = Burst(capacity: max(1, slots.count))
    for slot in slots { burst.append(slot) }
    return burst
  }

  private func slots(_ burst: borrowing Burst) -> [Descriptor] {
    (0..<burst.count).map { burst[$0] }
  }

  /// A packet of so many pieces, with or without metadata.
  private func packet(_ number: Int, pieces: Int, metadata: Bool = false) -> [Descriptor] {
    let tag = UInt16(number)
    let start = metadata ? [Offload(needsChecksum: true, checksumStart: 34, tag: tag).slot] : []
    return start
      + (0..<pieces).map {
        Descriptor(
          segment: UInt32(number), offset: UInt32($0), length: 60,
          flags: $0 < pieces - 1 ? .more : [], tag: tag)
      }
  }

  @Test func packetsComeOutAsTheyWentIn() throws {
    var random = Numbers(state: 9)
    for _ in 0..<300 {
      let packets = (0..<Int(random.next() % 40)).map {
        packet($0, pieces: 1 + Int(random.next() % 6), metadata: random.next() % 3 == 0)
      }
      let all = Array(packets.joined())
      var joined = burst(all)
      let units = joined.joinPackets()
      var ends = 0
      var length = 0
      for index in 0..<joined.count {
        length += 1
        #expect(length <= Descriptor.maximumSlots)
        if !joined[index].flags.contains(.more) {
          ends += 1
          length = 0
        }
      }
      #expect(ends == units && units <= packets.count)
      // As few as there can be: no two neighbours would fit into one.
      #expect(units <= all.count / 32 + 1)
      let opened = try joined.openAggregates()
      #expect(opened == packets.count)
      let got = slots(joined)
      #expect(got.count == all.count)
      for (one, other) in zip(got, all) {
        var one = one
        one.tag = other.tag
        #expect(one == other)
      }
    }
  }

  @Test func anAggregateHasTheTagOfItsFirstPacket() throws {
    var joined = burst(
      packet(7, pieces: 1) + packet(8, pieces: 2) + packet(9, pieces: 1, metadata: true))
    let units = joined.joinPackets()
    #expect(units == 1)
    let packets = try joined.openAggregate(from: 0)
    let tags = slots(joined).map(\.tag)
    #expect(packets == (3, 4) && tags == [7, 7, 7, 7, 7])
    // An ordinary packet is left alone.
    var single = burst(packet(5, pieces: 3))
    let one = try single.openAggregate(from: 0)
    let same = slots(single)
    #expect(one == (1, 2) && same == packet(5, pieces: 3))
  }

  @Test func whatHasNoEndStaysOutOfAnAggregate() {
    var joined = burst(
      packet(1, pieces: 1) + packet(2, pieces: 1) + [Descriptor(segment: 3, flags: .more)])
    let units = joined.joinPackets()
    let flags = slots(joined).map(\.flags.rawValue)
    #expect(units == 1 && flags == [17, 0, 1])
  }

  /// What only a peer against the rules makes. Nothing is changed then.
  @Test func badAggregatesAreRefused() {
    let more = Descriptor.Flags.more
    let joint = Descriptor.Flags(rawValue: 17)
    let piece = { (flags: Descriptor.Flags) in Descriptor(segment: 1, length: 60, flags: flags) }
    let metadata = Offload(needsChecksum: true).slot
    var marked = metadata
    marked.flags.insert(.aggregate)
    var last = metadata
    last.flags.remove(.more)
    let cases: [([Descriptor], AggregateError)] = [
      ([piece(joint)], .unterminated),
      ([piece(joint), piece(more)], .unterminated),
      ([piece(.aggregate)], .nothingBehind),
      ([piece(joint), piece(.aggregate)], .nothingBehind),
      ([piece(more), piece(joint), piece([.aggregate])], .nothingBehind),
      ([marked, piece([])], .packetWithoutPieces),
      ([piece(joint), marked, piece([])], .packetWithoutPieces),
      ([piece(joint), last], .packetWithoutPieces),
      ([piece(more), metadata, piece(joint), piece([])], .misplacedMetadata),
      ([piece(joint), piece(more), last], .misplacedMetadata),
      ([Descriptor](repeating: piece(joint), count: 64) + [piece([])], .tooLong(slots: 65)),
      (
        [Descriptor](repeating: piece(more), count: 126) + [piece(joint), piece([])],
        .tooLong(slots: 128)
      ),
    ]
    for (bad, expected) in cases {
      var burst = burst(bad)
      var seen: AggregateError?
      do throws(AggregateError) { try burst.openAggregates() } catch { seen = error }
      let left = slots(burst)
      #expect(seen == expected && left == bad)
    }
  }

  /// Any flags at all: an end, or an error, and never a packet that is marked still.
  @Test func anyFlagsAreAnAggregateOrAnError() {
    var random = Numbers(state: 4)
    for _ in 0..<20_000 {
      var burst = burst(
        (0..<1 + Int(random.next() % 12)).map { _ in
          Descriptor(segment: 1, flags: Descriptor.Flags(rawValue: UInt16(random.next() & 31)))
        })
      let before = slots(burst)
      if (try? burst.openAggregates()) != nil {
        let after = slots(burst)
        #expect(after.allSatisfy { !$0.flags.contains(.aggregate) })
        #expect(after.map(\.segment) == before.map(\.segment))
        let isOpen = after.last?.flags.contains(.more) == false
        #expect(isOpen)
      }
    }
  }
}
