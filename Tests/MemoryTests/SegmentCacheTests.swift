import Glibc
import Testing

@testable import Memory

@Suite struct SegmentCacheTests {
  /// Two threads allocate, share and release; each segment is with one of them at a time, and all come back.
  @Test func threadsShareAPoolWithoutLosingASegment() {
    let byteCount = 8 << 20
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 128 << 10)
    defer { memory.deallocate() }
    let shared = SharedSegmentPool(SegmentPool(arena: memory, range: 0..<byteCount))
    let workers = (1...2).map { CacheWorker(shared, memory, mark: UInt8($0)) }
    for worker in workers { worker.start() }
    for worker in workers { worker.join() }
    #expect(workers.map(\.wrong) == [0, 0])
    let free = (0..<SegmentPool.classCount).map { shared.available(in: $0) }
    #expect(free == shared.counts)
  }

  @Test func exhaustionGoesToTheNextSizeAndEnds() {
    let byteCount = 4 << 20
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 128 << 10)
    defer { memory.deallocate() }
    let shared = SharedSegmentPool(SegmentPool(arena: memory, range: 0..<byteCount))
    var count = 0
    do {
      var cache = SegmentCache(shared)
      var held: [UInt32] = []
      while let segment = cache.allocate(byteCount: 100) {
        held.append(segment.unit)
        count += 1
      }
      #expect(Set(held).count == held.count)
      for segment in held {
        cache.retain(segment)
        cache.release(segment)
        cache.release(segment)
      }
    }
    #expect(count == shared.counts.reduce(0, +))
    let free = (0..<SegmentPool.classCount).map { shared.available(in: $0) }
    #expect(free == shared.counts)
  }

  @Test func burstsLargerThanTheCacheComeBackWhole() {
    let byteCount = 8 << 20
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 128 << 10)
    defer { memory.deallocate() }
    let shared = SharedSegmentPool(SegmentPool(arena: memory, range: 0..<byteCount))
    do {
      var cache = SegmentCache(shared)
      var burst = Burst(capacity: 1000)
      cache.allocate(byteCount: 2000, upTo: 1000, into: &burst)
      let count = burst.count
      #expect(count == 1000)
      let units = Set((0..<count).map { burst[$0].segment })
      #expect(units.count == 1000)
      // One of them is somebody else's too.
      let kept = burst[500].segment
      cache.retain(kept)
      cache.release(&burst)
      let missing =
        shared.counts.reduce(0, +)
        - (0..<SegmentPool.classCount).reduce(0) { $0 + shared.available(in: $1) }
      #expect(missing <= 257 * 2)
      cache.release(kept)
    }
    let free = (0..<SegmentPool.classCount).map { shared.available(in: $0) }
    #expect(free == shared.counts)
  }
}

/// A thread of the test: it marks what it holds and looks whether the mark stays.
final class CacheWorker: @unchecked Sendable {
  private let shared: SharedSegmentPool
  private let memory: UnsafeMutableRawPointer
  private let mark: UInt8
  private var thread = pthread_t()
  private(set) var wrong = 0

  init(_ shared: SharedSegmentPool, _ memory: UnsafeMutableRawPointer, mark: UInt8) {
    self.shared = shared
    self.memory = memory
    self.mark = mark
  }

  func start() {
    pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<CacheWorker>.fromOpaque(argument!).takeUnretainedValue().work()
        return nil
      }, Unmanaged.passUnretained(self).toOpaque())
  }

  func join() { pthread_join(thread, nil) }

  private func work() {
    var cache = SegmentCache(shared)
    var held: [UInt32] = []
    var state = UInt64(mark)
    for _ in 0..<100_000 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let choice = Int(state >> 33)
      if choice % 2 == 0 || held.isEmpty {
        guard let segment = cache.allocate(byteCount: 1 + choice % 5000) else { continue }
        (memory + Int(segment.unit) * 1024).storeBytes(of: mark, as: UInt8.self)
        held.append(segment.unit)
      } else {
        let segment = held.remove(at: choice % held.count)
        if (memory + Int(segment) * 1024).load(as: UInt8.self) != mark { wrong += 1 }
        cache.release(segment)
      }
    }
    for segment in held { cache.release(segment) }
  }
}
