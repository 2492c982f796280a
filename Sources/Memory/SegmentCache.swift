import CLinux

/// One thread's store of free segments, up to 256 of each class. What it holds goes back to the pool with it. One thread;
/// the segments themselves may be retained and released in any thread, by its own cache.
public struct SegmentCache: ~Copyable {
  private let shared: SharedSegmentPool
  @usableFromInline var free: FreeSegments
  private static let capacity = 256
  /// How many move between cache and pool at once.
  private static let bulk = 128

  /// - Parameter shared: the pool that it takes from and gives back to.
  public init(_ shared: SharedSegmentPool) {
    self.shared = shared
    free = FreeSegments(
      shared.table, capacities: Array(repeating: Self.capacity, count: SegmentPool.classCount))
  }

  deinit {
    for sizeClass in 0..<SegmentPool.classCount {
      shared.withPool { free.move(sizeClass, upTo: Self.capacity, to: $0.free) }
    }
  }

  // MARK: One segment

  /// A segment of at least so many bytes, with one reference: of the best class, or of the next one that has any; nil
  /// where there is none.
  @inlinable @inline(__always) @_noLocks
  public mutating func allocate(byteCount: Int) -> Segment? {
    guard let best = SegmentPool.sizeClass(for: byteCount) else { return nil }
    guard let unit = free.allocate(best) else { return allocateLarger(best) }
    return Segment(unit: unit, byteCount: 1024 &<< best)
  }

  @inline(never) @usableFromInline @_noLocks
  mutating func allocateLarger(_ best: Int) -> Segment? {
    var sizeClass = best
    while sizeClass < SegmentPool.classCount {
      refill(sizeClass)
      if let unit = free.allocate(sizeClass) {
        return Segment(unit: unit, byteCount: 1024 &<< sizeClass)
      }
      sizeClass &+= 1
    }
    return nil
  }

  /// One more reference to a segment that the caller has one to.
  @inlinable @_noLocks
  public func retain(_ segment: UInt32) {
    _ = atomic_add32(free.table.references(free.table.header(segment)), 1)
  }

  /// One reference less; at the last the segment is free, in this cache. Whoever has the only reference needs no locked
  /// instruction: nobody else can change the count.
  @inlinable @inline(__always) @_noLocks
  public mutating func release(_ segment: UInt32) {
    if !free.release(alone: segment) { releaseSlowly(segment) }
  }

  /// One of several references, or no room.
  @inline(never) @usableFromInline @_noLocks
  mutating func releaseSlowly(_ segment: UInt32) {
    let header = free.table.header(segment)
    let word = free.table.references(header)
    let left = acquire_load32(word)
    precondition(left > 0)
    if left > 1 {
      if atomic_subtract32(word, 1) != 1 { return }
      // All others have gone meanwhile: it is free after all.
      relaxed_store32(word, 1)
    }
    if !free.release(alone: segment) {
      spill(Int(header.pointee.sizeClass))
      let isFree = free.release(alone: segment)
      precondition(isFree)
    }
  }

  // MARK: Many at once

  /// Appends up to `limit` segments of at least so many bytes, each with one reference, as far as the burst has room and
  /// there are any. Their slots have offset 0 and the length asked for.
  @inlinable @_noLocks
  public mutating func allocate(byteCount: Int, upTo limit: Int, into burst: inout Burst) {
    guard var sizeClass = SegmentPool.sizeClass(for: byteCount) else { return }
    var wanted = min(limit, burst.room)
    while wanted > 0 {
      let length = UInt32(truncatingIfNeeded: byteCount)
      wanted &-= free.allocate(sizeClass, byteCount: length, upTo: wanted, into: &burst)
      if wanted == 0 { return }
      refill(sizeClass)
      if free.lists[sizeClass].count == 0 {
        sizeClass &+= 1
        if sizeClass == SegmentPool.classCount { return }
      }
    }
  }

  /// One reference less to the segment of each slot; the burst is empty afterwards.
  @inlinable @_noLocks
  public mutating func release(_ burst: inout Burst) {
    let count = burst.count
    var index = 0
    while index < count {
      index = free.release(alone: burst, from: index)
      if index == count { break }
      // Of another class, with further references, or the cache is full.
      release(burst[index].segment)
      index &+= 1
    }
    burst.removeAll()
  }

  // MARK: The pool behind

  @_semantics("no_performance_analysis")
  @inline(never) @usableFromInline
  mutating func refill(_ sizeClass: Int) {
    shared.withPool { $0.free.move(sizeClass, upTo: Self.bulk, to: free) }
  }

  @_semantics("no_performance_analysis")
  @inline(never) @usableFromInline
  mutating func spill(_ sizeClass: Int) {
    shared.withPool { free.move(sizeClass, upTo: Self.bulk, to: $0.free) }
  }
}
