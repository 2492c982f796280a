import CLinux
import Glibc

/// A stack instance's own segments: a range of its arena cut into power-of-two pieces of 1 KiB to 128 KiB.
///
/// Best fit first, the next size when that is exhausted. Each segment has a header of its own cache line in a table at
/// the range's start, apart from the payload: headers of neighbours then fall into different cache sets, and payload
/// stays aligned to its size. What the headers say serves this process alone; the host does not read it. One thread.
public struct SegmentPool: ~Copyable, @unchecked Sendable {
  /// Sizes of the classes: 1 KiB << class.
  @inlinable public static var classCount: Int { @_noLocks get { 8 } }

  @usableFromInline let arena: UnsafeMutableRawPointer
  @usableFromInline var free: FreeSegments
  /// Segments of each class.
  public internal(set) var counts = [Int](repeating: 0, count: classCount)
  @usableFromInline var references = 0
  let shares: [Int]
  /// Blocks that there is memory for, those that are to be given up among them.
  var blockCount = 0
  /// What is to be given up, where anything is.
  var leaving: Leaving?
  /// Bytes of headers that lie apart from the pool's range; 0 where they lie at its start.
  private let separateHeaderBytes: Int
  var hasSeparateHeaders: Bool { separateHeaderBytes > 0 }

  /// Bytes of a block, all of whose segments are of one class.
  static let blockSize = 128 << 10
  /// Bytes of a block's headers.
  static let blockHeaderBytes = 128 * 64

  /// - Parameters:
  ///   - arena: the arena's first byte, mapped writable for as long as the pool lives.
  ///   - range: the pool's part of it, in bytes from the arena's start.
  ///   - maximum: how far the pool may reach once it has grown, in bytes from the arena's start; nil for no further than
  ///     now. The headers of a pool that can grow lie in memory of their own.
  ///   - shares: how much of the space each class gets, 1 KiB first, in parts of the sum.
  public init(
    arena: UnsafeMutableRawPointer, range: Range<Int>, maximum: Int? = nil,
    shares: [Int] = [1, 4, 2, 1, 1, 2, 1, 4]
  ) {
    precondition(shares.count == Self.classCount)
    self.arena = arena
    self.shares = shares
    let dataEnd = range.upperBound / Self.blockSize * Self.blockSize
    let start: Int
    let blocks: Int
    let capacity: Int
    let headers: UnsafeMutableRawPointer
    if let maximum, maximum > range.upperBound {
      start = (range.lowerBound + Self.blockSize - 1) / Self.blockSize * Self.blockSize
      blocks = max(0, (dataEnd - start) / Self.blockSize)
      capacity = max(blocks, (maximum - start) / Self.blockSize)
      separateHeaderBytes = max(1, capacity) * Self.blockHeaderBytes
      // Addresses only: memory comes with the blocks.
      let flags = Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS) | Int32(MAP_NORESERVE)
      guard
        let memory = linux_mmap(nil, separateHeaderBytes, PROT_READ | PROT_WRITE, flags, -1, 0)
      else { preconditionFailure("no addresses for the headers of a pool") }
      headers = memory
    } else {
      // Every block needs at most 128 headers.
      let space = range.count / (Self.blockSize + Self.blockHeaderBytes)
      blocks = max(0, min(space, (dataEnd - range.lowerBound) / Self.blockSize - 1))
      capacity = blocks
      start = dataEnd - blocks * Self.blockSize
      separateHeaderBytes = 0
      headers = arena + range.lowerBound
      headers.initializeMemory(as: UInt8.self, repeating: 0, count: blocks * Self.blockHeaderBytes)
    }
    let classes = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, capacity))
    classes.initialize(repeating: SegmentTable.absent, count: max(1, capacity))
    let table = SegmentTable(
      headers: headers.assumingMemoryBound(to: SegmentTable.Header.self), blocks: classes,
      blockCount: capacity, firstUnit: UInt32(start / Descriptor.unit))
    free = FreeSegments(table, capacities: counts)
    addBlocks(to: blocks)
  }

  deinit {
    free.table.blocks.deallocate()
    if separateHeaderBytes > 0 { munmap(free.table.headers, separateHeaderBytes) }
  }

  /// References to all segments together: 0 when everything has come back.
  @inlinable public var totalReferences: Int { references }

  /// Free segments of a class.
  public func available(in sizeClass: Int) -> Int { free.lists[sizeClass].count }

  /// The smallest class whose segments hold so many bytes, or nil for more than 128 KiB.
  @inlinable @_noLocks
  public static func sizeClass(for byteCount: Int) -> Int? {
    if byteCount <= 1024 { return 0 }
    if byteCount > 128 << 10 { return nil }
    return Int.bitWidth &- (byteCount &- 1).leadingZeroBitCount &- 10
  }

  // MARK: One segment

  /// A segment of at least so many bytes, with one reference; nil where none is free.
  @inlinable @inline(__always) @_noLocks
  public mutating func allocate(byteCount: Int) -> Segment? {
    guard let best = Self.sizeClass(for: byteCount) else { return nil }
    return take(best) ?? allocate(from: best, below: Self.classCount)
  }

  /// A segment of exactly this class, with one reference; nil where none is free.
  @inlinable @inline(__always) @_noLocks
  mutating func take(_ sizeClass: Int) -> Segment? {
    guard let unit = free.allocate(sizeClass) else { return nil }
    references &+= 1
    return Segment(unit: unit, byteCount: 1024 &<< sizeClass)
  }

  /// A segment of the first class that has any, of those from `best` and below `end`.
  @inline(never) @usableFromInline @_noLocks
  mutating func allocate(from best: Int, below end: Int) -> Segment? {
    var sizeClass = best
    while sizeClass < end {
      if let segment = take(sizeClass) { return segment }
      sizeClass &+= 1
    }
    return nil
  }

  /// One more reference to an allocated segment.
  @inlinable @_noLocks
  public mutating func retain(_ segment: UInt32) {
    let header = free.table.header(segment)
    precondition(header.pointee.references > 0)
    header.pointee.references &+= 1
    references &+= 1
  }

  /// One reference less; at the last the segment is free.
  @inlinable @inline(__always) @_noLocks
  public mutating func release(_ segment: UInt32) {
    references &-= 1
    if !free.release(alone: segment) { releaseShared(segment) }
  }

  @inline(never) @usableFromInline @_noLocks
  mutating func releaseShared(_ segment: UInt32) {
    let header = free.table.header(segment)
    precondition(header.pointee.references > 1)
    header.pointee.references &-= 1
    if header.pointee.references == 1 { noteLeft(segment) }
  }

  // MARK: Many at once

  /// Appends up to `limit` segments of at least so many bytes, each with one reference, as far as the burst has room and
  /// segments are free. Their slots have offset 0 and the length asked for.
  @inlinable @_noLocks
  public mutating func allocate(byteCount: Int, upTo limit: Int, into burst: inout Burst) {
    guard var sizeClass = Self.sizeClass(for: byteCount) else { return }
    var wanted = min(limit, burst.room)
    while wanted > 0 && sizeClass < Self.classCount {
      let taken = free.allocate(
        sizeClass, byteCount: UInt32(truncatingIfNeeded: byteCount), upTo: wanted, into: &burst)
      references &+= taken
      wanted &-= taken
      sizeClass &+= 1
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
      // Of another class, or with further references.
      if !free.release(alone: burst[index].segment) { releaseShared(burst[index].segment) }
      index &+= 1
    }
    references &-= count
    burst.removeAll()
  }

  // MARK: Where segments are

  /// Whether a segment that is allocated has one reference only.
  @inlinable @inline(__always) @_noLocks
  func isAlone(_ segment: UInt32) -> Bool { has(1, referencesTo: segment) }
  /// Whether a segment has so many references.
  @inlinable @inline(__always) @_noLocks
  func has(_ count: Int, referencesTo segment: UInt32) -> Bool {
    Int(free.table.header(segment).pointee.references) == count
  }
  /// Whether a segment is allocated.
  @inlinable @inline(__always) @_noLocks
  func holds(_ segment: UInt32) -> Bool { !has(0, referencesTo: segment) }

  /// References to a segment, 0 where it is free.
  public func references(to segment: UInt32) -> Int {
    let count = Int(free.table.header(segment).pointee.references)
    return isLeaving(segment) ? max(0, count - 1) : count
  }

  /// The segment that holds an address of the pool's data, or nil.
  @inlinable
  public func segment(at position: UInt64) -> Segment? { free.table.segment(at: position) }

  /// Where a segment's bytes are in this process.
  @inlinable
  public func address(of segment: Segment) -> UnsafeMutableRawPointer {
    arena + Int(segment.unit) * Descriptor.unit
  }
}
