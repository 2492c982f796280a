import Glibc
import Testing

@testable import Memory

@Suite struct SegmentPoolSizeTests {
  static let mebibyte = 1 << 20

  /// Reserved addresses, so that a pool of any size can be had; a page that nobody touches costs nothing.
  final class Space {
    let address: UnsafeMutableRawPointer
    let byteCount: Int

    init(_ byteCount: Int) {
      self.byteCount = byteCount
      var memory: UnsafeMutableRawPointer?
      posix_memalign(&memory, 128 << 10, byteCount)
      address = memory!
    }

    deinit { free(address) }
  }

  @Test func newSegmentsAreUsableAtOnceAndHandedOutLast() {
    let space = Space(16 << 20)
    var pool = SegmentPool(
      arena: space.address, range: 4096..<4 << 20, maximum: 16 << 20)
    let before = pool.counts
    pool.grow(to: 8 << 20)
    #expect(pool.end == 8 << 20 && zip(pool.counts, before).allSatisfy { $0 > $1 })
    for sizeClass in 0..<SegmentPool.classCount {
      var places: [Int] = []
      while let segment = pool.take(sizeClass) { places.append(Int(segment.unit) * 1024) }
      #expect(places.count == pool.counts[sizeClass])
      #expect(places.prefix(before[sizeClass]).allSatisfy { $0 < 4 << 20 })
      #expect(places.dropFirst(before[sizeClass]).allSatisfy { $0 >= 4 << 20 && $0 < 8 << 20 })
    }
    #expect(pool.segment(at: 9 << 20) == nil)
  }

  @Test func whatIsInUseIsWaitedFor() {
    let space = Space(16 << 20)
    var pool = SegmentPool(arena: space.address, range: 4096..<4 << 20, maximum: 16 << 20)
    pool.grow(to: 8 << 20)
    var held: [Segment] = []
    while let segment = pool.take(1) { held.append(segment) }
    let leaving = held.filter { Int($0.unit) * 1024 >= 4 << 20 }
    pool.beginShrink(to: 4 << 20)
    #expect(pool.leavingCount == leaving.count && !pool.finishShrink())
    // References that are shared, and told of as without the shrinking.
    pool.retain(leaving[0].unit)
    #expect(pool.references(to: leaving[0].unit) == 2)
    pool.release(leaving[0].unit)
    for segment in held { pool.release(segment.unit) }
    #expect(pool.leavingCount == 0 && pool.totalReferences == 0)
    while let segment = pool.allocate(byteCount: 1) { #expect(Int(segment.unit) * 1024 < 4 << 20) }
    #expect(pool.finishShrink() && pool.end == 4 << 20)
    #expect(pool.segment(at: 5 << 20) == nil)
  }

  @Test func whatIsFreeAtTheEndCanGoAlone() {
    let space = Space(16 << 20)
    var pool = SegmentPool(arena: space.address, range: 4096..<4 << 20, maximum: 16 << 20)
    pool.grow(to: 8 << 20)
    pool.grow(to: 12 << 20)
    var held: Segment?
    while let segment = pool.take(3) {
      if segment.unit >= UInt32(4 << 10), segment.unit < UInt32(8 << 10) { held = segment }
    }
    guard let held else { return #expect(Bool(false)) }
    pool = SegmentPool(arena: space.address, range: 4096..<4 << 20, maximum: 16 << 20)
    pool.grow(to: 8 << 20)
    pool.grow(to: 12 << 20)
    var taken: [Segment] = []
    while let segment = pool.take(3) { taken.append(segment) }
    for segment in taken where segment != held { pool.release(segment.unit) }
    pool.beginShrink(to: 4 << 20)
    #expect(pool.freeEnd > 4 << 20 && pool.freeEnd <= 8 << 20 && pool.leavingCount == 1)
    pool.beginShrink(to: 8 << 20)
    #expect(pool.finishShrink() && pool.end == 8 << 20)
    pool.release(held.unit)
    #expect(pool.totalReferences == 0)
  }

  /// Random growth, shrinking, keeping, allocation and release beside a model that knows only who has what.
  @Test func itAgreesWithAModel() {
    let space = Space(24 << 20)
    let start = 2 << 20
    var pool = SegmentPool(arena: space.address, range: start..<4 << 20, maximum: 24 << 20)
    var held: [Segment] = []
    var end = 4 << 20
    var target: Int?
    var seed: UInt64 = 42
    func random(_ limit: Int) -> Int {
      seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(seed >> 33) % limit
    }
    for step in 0..<60_000 {
      switch random(100) {
      case 0..<45:
        if let segment = pool.allocate(byteCount: 1 + random(128 << 10)) {
          let place = Int(segment.unit) * 1024
          #expect(place >= start && place + segment.byteCount <= target ?? end)
          #expect(pool.references(to: segment.unit) == 1)
          held.append(segment)
        }
      case 45..<50:
        if let segment = held.randomElement() {
          pool.retain(segment.unit)
          held.append(segment)
        }
      case 50..<96:
        if !held.isEmpty { pool.release(held.remove(at: random(held.count)).unit) }
      case 96:
        if target == nil, end < 24 << 20 {
          end = min(24 << 20, end + (1 + random(4)) << 21)
          pool.grow(to: end)
        }
      case 97:
        if target == nil, end > 4 << 20 {
          let wanted = 4 << 20 + random((end - 4 << 20) >> 21) << 21
          if wanted < end {
            target = wanted
            pool.beginShrink(to: wanted)
          }
        }
      case 98:
        pool.keep()
        target = nil
      default:
        if let wanted = target {
          let inUse = held.contains { Int($0.unit) * 1024 >= wanted }
          #expect(pool.finishShrink() == !inUse)
          if !inUse {
            end = wanted
            target = nil
          }
        }
      }
      #expect(pool.totalReferences == held.count)
      if step % 500 == 0 {
        let all = zip(pool.counts, 0...).reduce(0) { $0 + $1.0 * (1024 << $1.1) }
        #expect(all == pool.end - start && pool.end == end)
        // Nobody has what another has.
        let distinct = Set(held.map(\.unit))
        for unit in distinct {
          #expect(pool.references(to: unit) == held.count { $0.unit == unit })
        }
        let free = (0..<SegmentPool.classCount).reduce(0) { $0 + pool.available(in: $1) }
        let leaving = target.map { wanted in
          distinct.count { Int($0) * 1024 < wanted }
        }
        if let leaving {
          #expect(free + leaving <= pool.counts.reduce(0, +))
        } else {
          #expect(free + distinct.count == pool.counts.reduce(0, +))
        }
      }
    }
    for segment in held { pool.release(segment.unit) }
    pool.beginShrink(to: 4 << 20)
    #expect(pool.finishShrink() && pool.totalReferences == 0)
    var sum = 0
    while let segment = pool.allocate(byteCount: 1) { sum += segment.byteCount }
    #expect(sum == pool.end - start)
  }
}
