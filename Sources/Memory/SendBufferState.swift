/// What a ``SendBufferPool`` has counted since it was made.
@frozen
public struct SendBufferCounts: Equatable, Sendable {
  /// Times that segments ran out.
  public var exhausted: UInt64 = 0
  /// Allocations that were left waiting.
  public var waits: UInt64 = 0
  /// Entries that connections have added, each with one reference.
  public var entries: UInt64 = 0
  /// Writes that went on where the last entry ended, and extended it.
  public var extended: UInt64 = 0
}

/// Names a wait for a segment.
public struct SendBufferWait: Equatable, Sendable {
  let number: UInt64
}

/// Bytes of one segment that were in use when the pool said where they are.
@frozen
public struct SendRange: Equatable {
  /// First address, in bytes from the arena's start.
  public let position: UInt64
  /// Bytes, all in one segment.
  public let byteCount: Int
  @usableFromInline let unit: UInt32

  @inlinable
  init(position: UInt64, byteCount: Int, unit: UInt32) {
    self.position = position
    self.byteCount = byteCount
    self.unit = unit
  }

  /// The first bytes of it, no more than there are.
  @inlinable
  public func prefix(_ count: Int) -> SendRange {
    precondition(count >= 0 && count <= byteCount)
    return SendRange(position: position, byteCount: count, unit: unit)
  }
}

/// What a pool, its buffers and its connections' entries share. One thread.
@usableFromInline
struct SendBufferState: ~Copyable {
  @usableFromInline
  struct Waiter {
    var number: UInt64
    var sizeClass: Int
    var body: (consuming SendBuffer) -> Void
  }

  @usableFromInline var pool: SegmentPool
  @usableFromInline var counts = SendBufferCounts()
  /// Buffers and lists of entries that point here.
  @usableFromInline var users = 0
  /// The largest class that the pool has any segment of; -1 for none.
  @usableFromInline var largestClass: Int
  /// The smallest class that somebody waits for; segments from there on are theirs.
  @usableFromInline var smallestAwaited = SegmentPool.classCount
  /// Who waits, longest first.
  @usableFromInline var waiting: [Waiter] = []
  @usableFromInline var onExhausted: ((Int) -> Void)?
  @usableFromInline var onAvailable: (() -> Void)?
  /// The largest class that was lacking since nothing last was; nil where nothing is.
  @usableFromInline var lacking: Int?
  @usableFromInline var hasTold = false
  @usableFromInline var nextNumber: UInt64 = 0

  init(_ pool: consuming SegmentPool) {
    largestClass = pool.counts.lastIndex { $0 > 0 } ?? -1
    self.pool = pool
  }

  /// After the pool has grown or shrunk.
  mutating func notePoolSize() { largestClass = pool.counts.lastIndex { $0 > 0 } ?? -1 }

  @inlinable var largestBuffer: Int { largestClass < 0 ? 0 : 1024 &<< largestClass }

  @inlinable @inline(__always)
  func sizeClass(_ byteCount: Int) throws(SendBufferError) -> Int {
    guard byteCount > 0, let sizeClass = SegmentPool.sizeClass(for: byteCount),
      sizeClass <= largestClass
    else { throw .badSize(needed: byteCount, limit: largestBuffer) }
    return sizeClass
  }

  var isExhausted: Bool { lacking != nil }

  mutating func nothingLeft(_ sizeClass: Int) { lacking = max(lacking ?? 0, sizeClass) }

  /// Whether exhaustion has just begun.
  mutating func takesExhaustion() -> Bool {
    if hasTold { return false }
    hasTold = true
    counts.exhausted += 1
    return true
  }

  /// Whether it has just ended.
  mutating func takesEndOfExhaustion() -> Bool {
    guard let sizeClass = lacking, waiting.isEmpty,
      (sizeClass..<SegmentPool.classCount).contains(where: { pool.available(in: $0) > 0 })
    else { return false }
    lacking = nil
    hasTold = false
    return true
  }

  mutating func wait(
    _ sizeClass: Int, _ body: @escaping (consuming SendBuffer) -> Void
  ) -> SendBufferWait {
    nextNumber += 1
    counts.waits += 1
    waiting.append(Waiter(number: nextNumber, sizeClass: sizeClass, body: body))
    smallestAwaited = min(smallestAwaited, sizeClass)
    return SendBufferWait(number: nextNumber)
  }

  mutating func cancel(_ wait: SendBufferWait) {
    waiting.removeAll { $0.number == wait.number }
    findSmallestAwaited()
  }

  /// The first that can be served without taking what one before it waits for, and its segment.
  mutating func serveNext() -> (body: (consuming SendBuffer) -> Void, segment: Segment)? {
    var end = SegmentPool.classCount
    for (index, waiter) in waiting.enumerated() {
      if let segment = pool.allocate(from: waiter.sizeClass, below: end) {
        waiting.remove(at: index)
        findSmallestAwaited()
        return (waiter.body, segment)
      }
      end = min(end, waiter.sizeClass)
    }
    return nil
  }

  private mutating func findSmallestAwaited() {
    smallestAwaited = waiting.reduce(SegmentPool.classCount) { min($0, $1.sizeClass) }
  }

  // MARK: Addresses

  /// In bytes from the arena's start. Below it the number is larger than any place.
  @inlinable @inline(__always)
  func position(of address: UnsafeRawPointer) -> UInt64 {
    UInt64(UInt(bitPattern: address) &- UInt(bitPattern: pool.arena))
  }

  @inlinable
  func segment(at address: UnsafeRawPointer) -> Segment? { pool.segment(at: position(of: address)) }

  @inlinable @inline(__always)
  func range(at address: UnsafeRawPointer, byteCount: Int) throws(SendBufferError) -> SendRange {
    let position = position(of: address)
    guard let segment = pool.segment(at: position) else {
      throw .notInPool(address: UInt(bitPattern: address))
    }
    let end = UInt64(segment.unit) &* UInt64(Descriptor.unit) &+ UInt64(segment.byteCount)
    guard byteCount >= 0, byteCount <= Int(end - position) else {
      throw .crossesEnd(
        address: UInt(bitPattern: address), byteCount: byteCount, left: Int(end - position))
    }
    // The table knows the segment: its header is there.
    guard pool.free.table.ownHeader(segment.unit).pointee.references > 0 else {
      throw .notAllocated(address: UInt(bitPattern: address))
    }
    return SendRange(position: position, byteCount: byteCount, unit: segment.unit)
  }
}
