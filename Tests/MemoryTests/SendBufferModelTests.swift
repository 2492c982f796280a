import Testing

@testable import Memory

/// Random sequences of everything that a pool, its buffers and its connections' entries can do, beside a model that keeps
/// lists and counts them: after each step every segment has exactly the references that the lists say.
@Suite struct SendBufferModelTests {
  /// One entry of the model.
  struct Entry {
    var start: UInt
    var end: UInt
    var segment: UInt
  }

  struct Connection {
    var entries: [Entry] = []
  }

  final class Buffer {
    var buffer: SendBuffer?
    let start: UInt
    let byteCount: Int
    /// Where the next write begins.
    var written = 0
    init(_ buffer: consuming SendBuffer) {
      start = UInt(bitPattern: buffer.address)
      byteCount = buffer.byteCount
      self.buffer = consume buffer
    }
  }

  @Test(arguments: 1...8)
  func countsAreExactAfterEachStep(seed: Int) throws {
    let byteCount = 2 << 20
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 128 << 10)
    defer { memory.deallocate() }
    let pool = SendBufferPool(
      SegmentPool(
        arena: memory, range: 0..<byteCount, shares: [1, 2, 1, 1, 1, 1, 1, 2]))
    var random = Linear(state: UInt64(seed))
    let connectionCount = 3
    let real = UnsafeMutablePointer<PendingEntries>.allocate(capacity: connectionCount)
    for index in 0..<connectionCount {
      (real + index).initialize(to: PendingEntries(pool, capacity: 1))
    }
    var model = [Connection](repeating: Connection(), count: connectionCount)
    var buffers: [Buffer] = []
    var added: UInt64 = 0
    var extended: UInt64 = 0

    for step in 0..<6000 {
      let index = Int(random.next() % UInt64(connectionCount))
      switch random.next() % 16 {
      case 0..<4:
        if let buffer = try? pool.allocate(byteCount: 1 + Int(random.next() % 131_072)) {
          buffers.append(Buffer(buffer))
        }
      case 4..<9:
        guard !buffers.isEmpty else { continue }
        // Mostly the one that this connection wrote last.
        let choice = random.next() % 4 == 0 ? Int(random.next() >> 8) : index
        let buffer = buffers[choice % buffers.count]
        // Mostly the retry that goes on, sometimes anything.
        let at = random.next() % 4 == 0 ? Int(random.next()) % buffer.byteCount : buffer.written
        let start = at < 0 ? 0 : at
        let most = UInt64(buffer.byteCount - start) / (random.next() % 8 + 1)
        let count = Int(random.next() % (most + 1))
        let address = UnsafeRawPointer(bitPattern: buffer.start + UInt(start))!
        try real[index].append(address, byteCount: count)
        buffer.written = (start + count) % buffer.byteCount
        let from = UInt(bitPattern: address)
        if count == 0 { break }
        if let last = model[index].entries.last, last.end == from, last.segment == buffer.start {
          model[index].entries[model[index].entries.count - 1].end += UInt(count)
          extended += 1
        } else {
          model[index].entries.append(
            Entry(start: from, end: from + UInt(count), segment: buffer.start))
          added += 1
        }
      case 9..<12:
        let all = model[index].entries.reduce(0) { $0 + Int($1.end - $1.start) }
        var left = Int(random.next() % UInt64(all / 2 + 2))
        let taken = real[index].acknowledge(left)
        #expect(taken == min(left, all))
        left = taken
        while left > 0 {
          let length = Int(model[index].entries[0].end - model[index].entries[0].start)
          if left < length {
            model[index].entries[0].start += UInt(left)
            break
          }
          left -= length
          model[index].entries.removeFirst()
        }
      case 12..<15:
        if !buffers.isEmpty {
          buffers.remove(at: Int(random.next() % UInt64(buffers.count)))
        }
      default:
        // Closed or reset; or gone without.
        if random.next() % 2 == 0 {
          real[index].removeAll()
        } else {
          (real + index).deinitialize(count: 1)
          (real + index).initialize(to: PendingEntries(pool, capacity: 1))
        }
        model[index].entries = []
      }
      guard agrees(pool, real, model, buffers, base: UInt(bitPattern: memory)) else {
        Issue.record("seed \(seed), step \(step)")
        break
      }
      #expect(pool.counts.entries == added && pool.counts.extended == extended)
    }
    buffers = []
    (real).deinitialize(count: connectionCount)
    real.deallocate()
    #expect(pool.totalReferences == 0)
    #expect((0..<8).map { pool.available(in: $0) } == pool.segmentCounts)
    #expect(added > 500 && extended > 200)
  }

  private func agrees(
    _ pool: borrowing SendBufferPool, _ real: UnsafeMutablePointer<PendingEntries>,
    _ model: [Connection], _ buffers: [Buffer], base: UInt
  ) -> Bool {
    var references: [UInt: Int] = [:]
    for buffer in buffers { references[buffer.start, default: 0] += 1 }
    for (index, connection) in model.enumerated() {
      guard real[index].count == connection.entries.count else { return false }
      for (at, entry) in connection.entries.enumerated() {
        references[entry.segment, default: 0] += 1
        guard real[index][at] == (UInt64(entry.start - base), Int(entry.end - entry.start)) else {
          return false
        }
      }
    }
    return references.allSatisfy {
      pool.references(at: UnsafeRawPointer(bitPattern: $0.key)!) == $0.value
    } && pool.totalReferences == references.values.reduce(0, +)
  }

  struct Linear {
    var state: UInt64
    mutating func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state >> 33
    }
  }
}
