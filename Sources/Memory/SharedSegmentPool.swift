import CLinux

/// A ``SegmentPool`` for several threads: each has a ``SegmentCache``, and the pool itself is touched only when a cache
/// runs empty or full, for many segments at once.
public final class SharedSegmentPool: @unchecked Sendable {
  // Invariant: `pool` is changed only while `lock` is 1, and by who set it; `lock` lives as long as this object.
  private var pool: SegmentPool
  private let lock: UnsafeMutableRawPointer
  /// What may be read without the lock.
  let table: SegmentTable

  /// - Parameter pool: is this object's from now on.
  public init(_ pool: consuming SegmentPool) {
    table = pool.free.table
    self.pool = pool
    lock = .allocate(byteCount: 64, alignment: 64)
    lock.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
  }

  deinit { lock.deallocate() }

  /// Held for a few dozen instructions: waiting threads spin.
  @discardableResult
  func withPool<R>(_ body: (inout SegmentPool) -> R) -> R {
    while atomic_exchange32(lock, 1) != 0 { cpu_pause() }
    defer { release_store32(lock, 0) }
    return body(&pool)
  }

  /// Free segments of a class that no cache holds.
  public func available(in sizeClass: Int) -> Int { withPool { $0.available(in: sizeClass) } }
  /// Segments of each class, wherever they are.
  public var counts: [Int] { pool.counts }
}
