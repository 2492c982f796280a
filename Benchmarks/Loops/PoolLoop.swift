import Memory

/// A thread's cache of a shared pool: allocates segments of 2048 bytes and releases them, so many at a time.
public struct PoolLoop: PathLoop, ~Copyable {
  private let arena: Arena
  private var cache: SegmentCache
  private let bulk: Int
  private var burst = Burst(capacity: 64)

  /// - Parameter bulk: segments that are out at once, 1 to 64.
  public init(bulk: Int) throws {
    precondition((1...64).contains(bulk))
    self.bulk = bulk
    arena = try Arena.withBestPages(byteCount: 32 << 20, name: "martlet-bench-pool")
    cache = SegmentCache(
      SharedSegmentPool(SegmentPool(arena: arena.address, range: 0..<arena.byteCount)))
  }

  /// - Returns: segments: 32 a burst, whatever the bulk.
  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    let times = bursts &* Self.burstSize / bulk
    if bulk == 1 {
      for _ in 0..<times {
        guard let segment = cache.allocate(byteCount: 2048) else { throw Self.exhausted }
        cache.release(segment.unit)
      }
    } else {
      for _ in 0..<times {
        cache.allocate(byteCount: 2048, upTo: bulk, into: &burst)
        if burst.count != bulk { throw Self.exhausted }
        cache.release(&burst)
      }
    }
    return times &* bulk
  }

  private static var exhausted: UnsupportedLoop {
    UnsupportedLoop(description: "the pool is exhausted")
  }
}
