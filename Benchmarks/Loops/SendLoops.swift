import Memory

/// An application's write by address, and its end: a buffer is allocated, its bytes become an entry, the buffer goes, the
/// peer acknowledges. As many entries are pending as a window of 2 MiB has, 64 at most.
public struct SendLoop: PathLoop, ~Copyable {
  // In the order in which they go.
  private var entries: PendingEntries
  private let pool: SendBufferPool
  private let arena: Arena
  private let byteCount: Int

  /// - Parameter byteCount: of each write, 1 to 128 KiB.
  public init(byteCount: Int) throws {
    self.byteCount = byteCount
    arena = try Arena.withBestPages(byteCount: 64 << 20, name: "martlet-bench-send")
    pool = SendBufferPool(SegmentPool(arena: arena.address, range: 0..<arena.byteCount))
    entries = PendingEntries(pool)
  }

  private var window: Int { min(64 &* byteCount, 2 << 20) }

  @inline(__always)
  private mutating func write() throws(SendBufferError) {
    let buffer = try pool.allocate(byteCount: byteCount)
    try entries.append(buffer.address, byteCount: byteCount)
  }

  /// - Returns: writes.
  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    while entries.byteCount < window { try write() }
    for _ in 0..<bursts &* Self.burstSize {
      try write()
      entries.acknowledge(byteCount)
    }
    return bursts &* Self.burstSize
  }
}

/// The same with a copy, as a stack does that lets go of the application's memory at once: the bytes go to a segment of the
/// stack's own, which the acknowledgement frees. The application's bytes lie in so much memory as the window.
public struct CopyingSendLoop: PathLoop, ~Copyable {
  // In the order in which they go.
  private var entries: PendingEntries
  private let pool: SendBufferPool
  private let arena: Arena
  private let byteCount: Int
  private var at = 0

  /// - Parameter byteCount: of each write, 1 to 128 KiB.
  public init(byteCount: Int) throws {
    self.byteCount = byteCount
    arena = try Arena.withBestPages(byteCount: 66 << 20, name: "martlet-bench-send")
    pool = SendBufferPool(
      SegmentPool(arena: arena.address, range: Self.sourceBytes..<arena.byteCount))
    entries = PendingEntries(pool)
  }

  /// At the arena's start.
  private static var sourceBytes: Int { 2 << 20 }
  private var window: Int { min(64 &* byteCount, 2 << 20) }

  @inline(__always)
  private mutating func write() throws(SendBufferError) {
    let buffer = try pool.allocate(byteCount: byteCount)
    if at &+ byteCount > Self.sourceBytes { at = 0 }
    buffer.address.copyMemory(from: arena.address + at, byteCount: byteCount)
    at &+= byteCount
    try entries.append(buffer.address, byteCount: byteCount)
  }

  /// - Returns: writes.
  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    while entries.byteCount < window { try write() }
    for _ in 0..<bursts &* Self.burstSize {
      try write()
      entries.acknowledge(byteCount)
    }
    return bursts &* Self.burstSize
  }
}
