import Memory

/// A thread's cache of a shared pool: allocates segments of 2048 bytes and releases them, so many at a time.
public struct PoolLoop: PathLoop, ~Copyable {
  private let arena: Arena
  private var cache: SegmentCache
  private let bulk: Int
  private let units: UnsafeMutablePointer<UInt32>

  /// - Parameter bulk: segments that are out at once, 1 to 64.
  public init(bulk: Int) throws {
    precondition((1...64).contains(bulk))
    self.bulk = bulk
    arena = try Arena.withBestPages(byteCount: 32 << 20, name: "martlet-bench-pool")
    cache = SegmentCache(
      SharedSegmentPool(SegmentPool(arena: arena.address, range: 0..<arena.byteCount)))
    units = .allocate(capacity: 64)
    units.initialize(repeating: 0, count: 64)
  }

  deinit { units.deallocate() }

  /// - Returns: segments: 32 a burst, whatever the bulk.
  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    let times = bursts &* Self.burstSize / bulk
    for _ in 0..<times {
      for index in 0..<bulk {
        guard let segment = cache.allocate(byteCount: 2048) else {
          throw UnsupportedLoop(description: "the pool is exhausted")
        }
        units[index] = segment.unit
      }
      for index in 0..<bulk { cache.release(units[index]) }
    }
    return times &* bulk
  }
}
