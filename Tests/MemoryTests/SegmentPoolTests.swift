import Testing

@testable import Memory

@Suite struct SegmentPoolTests {
  static let byteCount = 16 << 20

  /// A pool over memory whose addresses are multiples of its largest class.
  func withPool(
    shares: [Int] = [1, 4, 2, 1, 1, 2, 1, 4], _ body: (inout SegmentPool) throws -> Void
  )
    rethrows
  {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: Self.byteCount, alignment: 128 << 10)
    defer { memory.deallocate() }
    var pool = SegmentPool(arena: memory, range: 4096..<Self.byteCount, shares: shares)
    try body(&pool)
  }

  @Test func classesAreTheSmallestThatFit() {
    for (byteCount, sizeClass) in [
      (1, 0), (1024, 0), (1025, 1), (2048, 1), (2049, 2), (65536, 6), (65537, 7), (131072, 7),
    ] {
      #expect(SegmentPool.sizeClass(for: byteCount) == sizeClass)
    }
    #expect(SegmentPool.sizeClass(for: 131073) == nil)
  }

  @Test func segmentsAreAlignedAndDoNotOverlap() {
    withPool { pool in
      var taken: [(start: Int, end: Int)] = []
      var sizes: [Int: Int] = [:]
      while let segment = pool.allocate(byteCount: 1) {
        let start = Int(segment.unit) * 1024
        #expect(start % segment.byteCount == 0)
        #expect(start >= 4096 && start + segment.byteCount <= Self.byteCount)
        taken.append((start, start + segment.byteCount))
        sizes[segment.byteCount, default: 0] += 1
      }
      // Best fit first, then the next size: all of them, in the end.
      let all = pool.counts.reduce(0, +)
      #expect(taken.count == all)
      #expect(sizes.count == SegmentPool.classCount)
      taken.sort { $0.start < $1.start }
      for (a, b) in zip(taken, taken.dropFirst()) { #expect(a.end <= b.start) }
    }
  }

  @Test func theNextSizeServesWhenOneIsExhausted() {
    withPool { pool in
      for _ in 0..<pool.counts[1] {
        let segment = pool.allocate(byteCount: 2000)
        #expect(segment?.byteCount == 2048)
      }
      let next = pool.allocate(byteCount: 2000)
      #expect(next?.byteCount == 4096)
    }
  }

  @Test func countsStayExactThroughReferences() {
    withPool { pool in
      var held: [UInt32] = []
      for _ in 0..<20_000 {
        switch Int.random(in: 0..<3) {
        case 0:
          if let segment = pool.allocate(byteCount: .random(in: 1...131072)) {
            held.append(segment.unit)
          }
        case 1:
          if let segment = held.randomElement() {
            pool.retain(segment)
            held.append(segment)
          }
        default:
          if !held.isEmpty { pool.release(held.remove(at: .random(in: 0..<held.count))) }
        }
        let references = pool.totalReferences
        #expect(references == held.count)
      }
      for segment in held { pool.release(segment) }
      let free = (0..<SegmentPool.classCount).map { pool.available(in: $0) }
      let counts = pool.counts
      #expect(free == counts)
      let references = pool.totalReferences
      #expect(references == 0)
    }
  }

  @Test func anAddressFindsItsSegment() throws {
    try withPool { pool in
      let allocated = pool.allocate(byteCount: 60_000)
      let segment = try #require(allocated)
      let start = UInt64(segment.unit) * 1024
      for offset in [0, 1, 1024, 65535] as [UInt64] {
        let found = pool.segment(at: start + offset)
        #expect(found == segment)
      }
      let outside = [
        pool.segment(at: 0), pool.segment(at: UInt64(Self.byteCount)), pool.segment(at: .max),
      ]
      #expect(outside == [nil, nil, nil])
    }
  }

  @Test func manyAtOnceGoOnWithTheNextSize() {
    withPool { pool in
      let ofFirst = pool.counts[1]
      var burst = Burst(capacity: ofFirst + 10)
      pool.allocate(byteCount: 2000, upTo: ofFirst + 8, into: &burst)
      let count = burst.count
      #expect(count == ofFirst + 8)
      var units: Set<UInt32> = []
      for index in 0..<burst.count {
        units.insert(burst[index].segment)
        let (length, references) = (burst[index].length, pool.references(to: burst[index].segment))
        #expect(length == 2000 && references == 1)
      }
      #expect(units.count == ofFirst + 8)
      let left = [pool.available(in: 1), pool.counts[2] - pool.available(in: 2)]
      #expect(left == [0, 8])
      pool.release(&burst)
      let after = [burst.count, pool.totalReferences]
      #expect(after == [0, 0])
      let free = (0..<SegmentPool.classCount).map { pool.available(in: $0) }
      let counts = pool.counts
      #expect(free == counts)
    }
  }

  @Test func aMixedBurstIsReleasedOneReferenceEach() {
    withPool { pool in
      var burst = Burst(capacity: 64)
      for byteCount in [100, 2000, 2000, 100, 60_000, 4000, 100] {
        pool.allocate(byteCount: byteCount, upTo: 1, into: &burst)
      }
      let shared = [burst[1].segment, burst[4].segment]
      for segment in shared { pool.retain(segment) }
      pool.release(&burst)
      let left = shared.map { pool.references(to: $0) } + [pool.totalReferences]
      #expect(left == [1, 1, 2])
      for segment in shared { pool.release(segment) }
      let free = (0..<SegmentPool.classCount).map { pool.available(in: $0) }
      let counts = pool.counts
      #expect(free == counts)
    }
  }

  @Test func whatNoSegmentBeginsAtCannotBeReleased() async {
    await #expect(processExitsWith: .failure) {
      let memory = UnsafeMutableRawPointer.allocate(byteCount: 16 << 20, alignment: 128 << 10)
      var pool = SegmentPool(arena: memory, range: 4096..<16 << 20)
      let segment = pool.allocate(byteCount: 4096)
      // The middle of one that is in use.
      pool.release((segment?.unit ?? 0) + 1)
    }
    await #expect(processExitsWith: .failure) {
      let memory = UnsafeMutableRawPointer.allocate(byteCount: 16 << 20, alignment: 128 << 10)
      var pool = SegmentPool(arena: memory, range: 4096..<16 << 20)
      pool.release(1)
    }
  }
}
