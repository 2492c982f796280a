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
  var table: SegmentTable { pool.table }
}

/// One thread's store of free segments, up to 64 of each class. What it holds goes back to the pool with it. One thread.
///
/// What each segment needs is reached by plain pointers: the pool is touched, through its object, only when the store runs
/// empty or full.
public struct SegmentCache: ~Copyable {
  @usableFromInline let shared: SharedSegmentPool
  // Invariant: `table` and `places` are valid as long as `shared`, and as this cache. The first counts[c] of the
  // `capacity` places of class c are free segments that only this cache holds.
  @usableFromInline let table: SegmentTable
  @usableFromInline let places: UnsafeMutablePointer<UInt32>
  @usableFromInline let counts: UnsafeMutablePointer<Int>
  @inlinable static var capacity: Int { 64 }
  @inlinable static var bulk: Int { 32 }

  /// - Parameter shared: the pool that it takes from and gives back to.
  public init(_ shared: SharedSegmentPool) {
    self.shared = shared
    table = shared.table
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
  @inlinable
  public mutating func allocate(byteCount: Int) -> Segment? {
    guard var sizeClass = SegmentPool.sizeClass(for: byteCount) else { return nil }
    var count = counts[sizeClass]
    if count == 0 {
      sizeClass = fill(from: sizeClass)
      if sizeClass == SegmentPool.classCount { return nil }
      count = counts[sizeClass]
    }
    count &-= 1
    counts[sizeClass] = count
    let unit = places[sizeClass &* Self.capacity &+ count]
    release_store32(table.referenceWord(of: unit, sizeClass: sizeClass), 1)
    return Segment(unit: unit, byteCount: 1024 &<< sizeClass)
  }

  /// One more reference to a segment that the caller has one to.
  @inlinable
  public func retain(_ segment: UInt32) {
    _ = atomic_add32(table.referenceWord(of: segment).word, 1)
  }

  /// One reference less; at the last the segment is free, in this cache. Whoever has the only reference needs no locked
  /// instruction: nobody else can change the count.
  @inlinable
  public mutating func release(_ segment: UInt32) {
    let (word, sizeClass) = table.referenceWord(of: segment)
    let left = acquire_load32(word)
    precondition(left > 0, "a segment was released more often than retained")
    if left == 1 {
      relaxed_store32(word, 0)
    } else if atomic_subtract32(word, 1) != 1 {
      return
    }
    if counts[sizeClass] == Self.capacity { spill(sizeClass) }
    let count = counts[sizeClass]
    places[sizeClass &* Self.capacity &+ count] = segment
    counts[sizeClass] = count &+ 1
  }

  /// - Returns: the first class from `best` on that has segments now; the number of classes where none has.
  @inline(never) @usableFromInline
  mutating func fill(from best: Int) -> Int {
    for sizeClass in best..<SegmentPool.classCount {
      if counts[sizeClass] == 0 {
        counts[sizeClass] = shared.withPool {
          $0.takeFree(sizeClass, limit: Self.bulk, into: places + sizeClass * Self.capacity)
        }
      }
      if counts[sizeClass] > 0 { return sizeClass }
    }
    return SegmentPool.classCount
  }

  @inline(never) @usableFromInline
  mutating func spill(_ sizeClass: Int) {
    counts[sizeClass] -= Self.bulk
    let surplus = places + sizeClass * Self.capacity + counts[sizeClass]
    shared.withPool { $0.putFree(sizeClass, surplus, count: Self.bulk) }
  }
}
