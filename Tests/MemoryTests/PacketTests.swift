import Testing

@testable import Memory

/// Packets in places of their own, since no array holds them.
private final class Packets {
  let places: UnsafeMutablePointer<Packet?>
  let count: Int

  init(count: Int) {
    self.count = count
    places = .allocate(capacity: count)
    for index in 0..<count { (places + index).initialize(to: nil) }
  }

  deinit {
    places.deinitialize(count: count)
    places.deallocate()
  }

  func isEmpty(_ index: Int) -> Bool { places[index] == nil }
}

extension Packet {
  fileprivate borrowing func allBytes() -> [UInt8] {
    var all: [UInt8] = []
    for index in 0..<pieceCount {
      bytes(ofPiece: index).withUnsafeBytes { all += $0 }
    }
    return all
  }

  fileprivate borrowing func allPieces() -> [Descriptor] { (0..<pieceCount).map { piece($0) } }

  /// Its references are somebody else's.
  fileprivate mutating func disown() { used = 0 }

  fileprivate mutating func fill(_ bytes: [UInt8], at position: Int = 0) {
    write(bytes.span.bytes, at: position)
  }
}

@Suite struct PacketTests {
  func withPool(
    _ byteCount: Int = 4 << 20, _ body: (inout PacketPool) throws -> Void
  ) rethrows {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 128 << 10)
    defer { memory.deallocate() }
    var pool = PacketPool(SegmentPool(arena: memory, range: 4096..<byteCount))
    try body(&pool)
  }

  /// Every operation on packets that share segments, beside plain arrays of bytes that share nothing.
  @Test(arguments: [1, 2, 3]) func aPacketIsItsBytesWhateverItsClonesDo(seed: UInt64) {
    withPool { pool in
      var random = Numbers(state: seed)
      let packets = Packets(count: 24)
      var model = [[UInt8]?](repeating: nil, count: 24)
      var clones: UInt64 = 0
      var writes = 0
      for step in 0..<6000 {
        let at = Int(random.next() % 24)
        guard var bytes = model[at] else {
          let count = 1 + Int(random.next() % 3000)
          var new = pool.make(byteCount: count, headroom: Int(random.next() % 100))
          let isThere = new != nil
          #expect(isThere)
          let filling = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
          new!.fill(filling)
          packets.places[at] = new.take()
          model[at] = filling
          continue
        }
        switch random.next() % 8 {
        case 0, 1:
          if let free = model.firstIndex(of: nil) {
            packets.places[free] = packets.places[at]!.clone()
            model[free] = bytes
            clones += 1
          }
        case 2:
          let count = Int(random.next() & 1023) % (bytes.count + 1)
          packets.places[at]!.removeFirst(count)
          bytes.removeFirst(count)
          model[at] = bytes
        case 3:
          let count = Int(random.next() & 1023) % (bytes.count + 1)
          packets.places[at]!.removeLast(count)
          bytes.removeLast(count)
          model[at] = bytes
        case 4:
          let header = (0..<1 + random.next() % 60).map { _ in
            UInt8(truncatingIfNeeded: random.next())
          }
          if packets.places[at]!.prepend(header.count) {
            // A header that has just been made room for is nobody else's.
            packets.places[at]!.fill(header)
            model[at] = header + bytes
          }
        case 5:
          if bytes.isEmpty { break }
          let start = Int(random.next() % UInt64(bytes.count))
          let count = min(bytes.count - start, 1 + Int(random.next() % 200))
          let new = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
          let isWritable = packets.places[at]!.makeWritable(start..<start + count)
          #expect(isWritable)
          packets.places[at]!.fill(new, at: start)
          bytes.replaceSubrange(start..<start + count, with: new)
          model[at] = bytes
          writes += 1
        case 6:
          let other = Int(random.next() % 24)
          if other != at, let tail = model[other],
            packets.places[at]!.allPieces().count + packets.places[other]!.allPieces().count
              <= Packet.maximumPieces
          {
            packets.places[at]!.append(packets.places[other].take()!)
            model[other] = nil
            model[at] = bytes + tail
          }
        default:
          packets.places[at] = nil
          model[at] = nil
        }
        if step % 50 == 0 { check(packets, model, pool) }
      }
      check(packets, model, pool)
      let counts = pool.counts
      #expect(counts.clones == clones && clones > 300 && writes > 300)
      #expect(counts.copiedSegments > 100)
      for index in 0..<24 { packets.places[index] = nil }
      let left = (pool.counts.packets, pool.totalReferences)
      #expect(left == (0, 0))
    }
  }

  /// The bytes of all packets, and as many references to each segment as packets name it.
  private func check(_ packets: Packets, _ model: [[UInt8]?], _ pool: borrowing PacketPool) {
    var references: [UInt32: Int] = [:]
    var live = 0
    for (index, bytes) in model.enumerated() {
      #expect(packets.isEmpty(index) == (bytes == nil))
      guard let bytes else { continue }
      live += 1
      let isSame = packets.places[index]!.allBytes() == bytes
      #expect(isSame)
      for piece in packets.places[index]!.allPieces() {
        references[piece.segment, default: 0] += 1
      }
    }
    let total = pool.totalReferences
    #expect(total == references.values.reduce(0, +))
    for (segment, count) in references {
      let actual = pool.references(to: segment)
      #expect(actual == count)
    }
    let packetCount = pool.counts.packets
    #expect(packetCount == live)
  }

  @Test func onlyTheSharedSegmentsOfTheRangeAreCopied() {
    withPool { pool in
      var packet = pool.make(byteCount: 100)!
      packet.append(pool.make(byteCount: 2000)!)
      packet.append(pool.make(byteCount: 3000)!)
      // Nobody else has them: nothing to copy.
      let first = packet.makeWritable(0..<5100)
      var counts = pool.counts
      #expect(first && counts.copiedSegments == 0)
      var clone: Packet? = packet.clone()
      let shared = pool.totalReferences
      #expect(shared == 6)
      let second = packet.makeWritable(500..<600)
      counts = pool.counts
      #expect(second && counts.copiedSegments == 1 && counts.copiedBytes == 2000)
      // What was copied is not copied again; its neighbours are as they were.
      let third = packet.makeWritable(100..<2100)
      counts = pool.counts
      #expect(third && counts.copiedSegments == 1)
      let neighbours = [packet.isShared(0..<100), packet.isShared(2100..<5100)]
      #expect(neighbours == [true, true])
      let across = packet.makeWritable(99..<2101)
      counts = pool.counts
      #expect(across && counts.copiedSegments == 3 && counts.copiedBytes == 5100)
      // The last one needs no copy: the other has gone.
      let again = packet.clone()
      clone = nil
      _ = consume again
      let last = packet.makeWritable(0..<5100)
      counts = pool.counts
      #expect(last && counts.copiedSegments == 3 && clone == nil)
    }
  }

  @Test func metadataAndHeadersAreEachPacketsOwn() {
    withPool { pool in
      var packet = pool.make(byteCount: 60, headroom: 64)!
      packet.fill((0..<60).map { UInt8($0) })
      packet.metadata.tag = 7
      packet.metadata.transportStart = 34
      packet.metadata.offload = Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 16)
      var clone = packet.clone()
      clone.metadata.tag = 8
      clone.metadata.offload = Offload()
      clone.removeFirst(14)
      let both = [packet.metadata.tag, clone.metadata.tag]
      #expect(both == [7, 8])
      let starts = [packet.metadata.transportStart, clone.metadata.transportStart]
      #expect(starts == [34, 20])
      // The free bytes before the first are shared too: a header goes elsewhere.
      let header = [UInt8](repeating: 0xee, count: 14)
      let hasHeader = clone.prepend(14)
      #expect(hasHeader)
      clone.fill(header)
      let places = [clone.pieceCount, packet.pieceCount]
      #expect(places == [2, 1])
      let (own, other) = (packet.allBytes(), clone.allBytes())
      #expect(own == (0..<60).map { UInt8($0) } && other == header + (14..<60).map { UInt8($0) })
      _ = consume clone
      let isAlone = packet.prepend(14)
      #expect(isAlone)
      let inPlace = (packet.pieceCount, packet.metadata.offload.checksumStart)
      #expect(inPlace == (1, 48))
      var burst = Burst(capacity: 4)
      packet.append(to: &burst)
      let slots = (burst.count, burst[0].flags, burst[1].length, burst[1].tag)
      #expect(slots.0 == 2 && slots.1.contains(.offload) && slots.2 == 74 && slots.3 == 7)
    }
  }

  @Test func piecesOfOthersAreAdoptedOnlyWhereTheyAreSegments() {
    withPool { pool in
      let own = pool.make(byteCount: 4000)!
      let unit = own.piece(0).segment
      var refused: [Bool] = []
      func adopted(_ slots: [Descriptor]) -> Bool {
        var burst = Burst(capacity: 16)
        for slot in slots { burst.append(slot) }
        return pool.adopt(burst, from: 0, through: slots.count - 1) != nil
      }
      refused.append(!adopted([Descriptor(segment: unit, length: 4097)]))
      refused.append(!adopted([Descriptor(segment: unit + 4, length: 10)]))
      refused.append(!adopted([Descriptor(segment: .max, offset: .max, length: .max)]))
      refused.append(!adopted([Descriptor(segment: 0, length: 1)]))
      refused.append(
        !adopted([Descriptor(segment: unit, length: 7 << 16, flags: [.offload, .more])]))
      refused.append(!adopted([Offload(needsChecksum: true).slot]))
      let nine = [Descriptor](repeating: Descriptor(segment: unit, length: 1), count: 9)
      refused.append(!adopted(nine))
      #expect(refused == [Bool](repeating: true, count: 7))
      let references = pool.totalReferences
      #expect(references == 1)
      // In the middle of a segment, with metadata; the reference is the new packet's.
      var burst = Burst(capacity: 2)
      burst.append(Offload(needsChecksum: true, checksumStart: 34, tag: 3).slot)
      burst.append(Descriptor(segment: unit + 1, offset: 24, length: 100))
      // As a stack does that has a segment itself.
      var carrier = own.clone()
      let adoptee = pool.adopt(burst, from: 0, through: 1)!
      let piece = adoptee.piece(0)
      #expect(piece == Descriptor(segment: unit, offset: 1048, length: 100))
      let metadata = adoptee.metadata
      #expect(metadata.tag == 3 && metadata.offload.checksumStart == 34)
      let now = pool.references(to: unit)
      #expect(now == 2)
      carrier.disown()
    }
  }

  @Test func exhaustionChangesNothing() {
    withPool(1 << 20) { pool in
      var packet = pool.make(byteCount: 1000)!
      packet.fill([UInt8](repeating: 5, count: 1000))
      var rest: [UInt32] = []
      var held = Packets(count: 2000)
      var taken = 0
      while let next = pool.make(byteCount: 1) {
        rest.append(next.piece(0).segment)
        held.places[taken] = consume next
        taken += 1
      }
      let clone = packet.clone()
      let isWritable = packet.makeWritable(0..<1000)
      let hasHeader = packet.prepend(20)
      #expect(!isWritable && !hasHeader)
      let (bytes, count) = (packet.allBytes(), clone.allBytes().count)
      #expect(bytes == [UInt8](repeating: 5, count: 1000) && count == 1000)
      held = Packets(count: 0)
      let left = pool.totalReferences
      #expect(left == 2 && taken > 10 && rest.count == taken)
    }
  }

  @Test func bytesOfTwoPacketsAreNotWritten() async {
    await #expect(processExitsWith: .failure) {
      let memory = UnsafeMutableRawPointer.allocate(byteCount: 4 << 20, alignment: 128 << 10)
      var pool = PacketPool(SegmentPool(arena: memory, range: 4096..<4 << 20))
      var packet = pool.make(byteCount: 100)!
      let clone = packet.clone()
      packet.write([UInt8](repeating: 1, count: 1).span.bytes, at: 99)
      _ = clone.byteCount
    }
    await #expect(processExitsWith: .failure) {
      let memory = UnsafeMutableRawPointer.allocate(byteCount: 4 << 20, alignment: 128 << 10)
      var pool: PacketPool? = PacketPool(SegmentPool(arena: memory, range: 4096..<4 << 20))
      let packet = pool!.make(byteCount: 100)!
      pool = nil
      _ = packet.byteCount
    }
  }
}

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
struct Numbers {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z >> 31
  }
}
