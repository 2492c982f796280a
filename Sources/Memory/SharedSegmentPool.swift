import CLinux

/// A ``SegmentPool`` for several threads: each has a ``SegmentCache``, and the pool itself is touched only when a cache
/// runs empty or full, for many segments at once.
public final class SharedSegmentPool: @unchecked Sendable {
  // Invariant: `pool` is changed only while `lock` is 1, and by who set it; `lock` lives as long as this object.
  private var pool: SegmentPool
  private let lock: UnsafeMutableRawPointer

  /// - Parameter pool: is this object's from now on.
  public init(_ pool: consuming SegmentPool) {
    self.pool = pool
    lock = .allocate(byteCount: 64, alignment: 64)
    lock.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
  }

  deinit { lock.deallocate() }

  /// Held for a few dozen instructions: waiting threads spin.
  func withPool<R>(_ body: (inout SegmentPool) -> R) -> R {
    while atomic_exchange32(lock, 1) != 0 { cpu_pause() }
    defer { release_store32(lock, 0) }
    return body(&pool)
  }

  /// Free segments of a class that no cache holds.
  public func available(in sizeClass: Int) -> Int { withPool { $0.available(in: sizeClass) } }
  /// Segments of each class, wherever they are.
  public var counts: [Int] { pool.counts }

  // What never changes may be read without the lock.
  func referenceWord(of segment: UInt32) -> UnsafeMutableRawPointer {
    pool.referenceWord(of: segment)
  }
  func sizeClass(of segment: UInt32) -> Int { pool.sizeClass(of: segment) }
}

/// One thread's store of free segments, up to 64 of each class. What it holds goes back to the pool with it. One thread.
public struct SegmentCache: ~Copyable {
  private let shared: SharedSegmentPool
  // Invariant: the first counts[c] of the `capacity` places of class c are free segments that only this cache holds.
  private let places: UnsafeMutablePointer<UInt32>
  private let counts: UnsafeMutablePointer<Int>
  private static let capacity = 64
  private static let bulk = 32

  /// - Parameter shared: the pool that it takes from and gives back to.
  public init(_ shared: SharedSegmentPool) {
    self.shared = shared
    places = .allocate(capacity: SegmentPool.classCount * Self.capacity)
    places.initialize(repeating: 0, count: SegmentPool.classCount * Self.capacity)
    counts = .allocate(capacity: SegmentPool.classCount)
    counts.initialize(repeating: 0, count: SegmentPool.classCount)
  }

  deinit {
    for sizeClass in 0..<SegmentPool.classCount {
      let (start, count) = (places + sizeClass * Self.capacity, counts[sizeClass])
      shared.withPool { $0.putFree(sizeClass, start, count: count) }
    }
    places.deallocate()
    counts.deallocate()
  }

  /// A segment of at least so many bytes, with one reference: of the best class, or of the next one that has any.
  public mutating func allocate(byteCount: Int) -> Segment? {
    guard let best = SegmentPool.sizeClass(for: byteCount) else { return nil }
    for sizeClass in best..<SegmentPool.classCount {
      let start = places + sizeClass * Self.capacity
      if counts[sizeClass] == 0 {
        counts[sizeClass] = shared.withPool {
          $0.takeFree(sizeClass, limit: Self.bulk, into: start)
        }
      }
      if counts[sizeClass] == 0 { continue }
      counts[sizeClass] -= 1
      let unit = start[counts[sizeClass]]
      release_store32(shared.referenceWord(of: unit), 1)
      return Segment(unit: unit, byteCount: 1024 << sizeClass)
    }
    return nil
  }

  /// One more reference to a segment that the caller has one to.
  public func retain(_ segment: UInt32) { _ = atomic_add32(shared.referenceWord(of: segment), 1) }

  /// One reference less; at the last the segment is free, in this cache. Whoever has the only reference needs no locked
  /// instruction: nobody else can change the count.
  public mutating func release(_ segment: UInt32) {
    let word = shared.referenceWord(of: segment)
    let left = acquire_load32(word)
    precondition(left > 0, "a segment was released more often than retained")
    if left == 1 {
      relaxed_store32(word, 0)
    } else if atomic_subtract32(word, 1) != 1 {
      return
    }
    let sizeClass = shared.sizeClass(of: segment)
    let start = places + sizeClass * Self.capacity
    if counts[sizeClass] == Self.capacity {
      counts[sizeClass] -= Self.bulk
      let surplus = start + counts[sizeClass]
      shared.withPool { $0.putFree(sizeClass, surplus, count: Self.bulk) }
    }
    start[counts[sizeClass]] = segment
    counts[sizeClass] += 1
  }
}
