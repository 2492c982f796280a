import CLinux

/// A stack instance's own segments: a range of its arena cut into power-of-two pieces of 1 KiB to 128 KiB.
///
/// Best fit first, the next size when that is exhausted. Each segment has a header of its own cache line in a table at
/// the range's start, apart from the payload: headers of neighbours then fall into different cache sets, and payload
/// stays aligned to its size. What the headers say serves this process alone; the host does not read it. One thread.
public struct SegmentPool: ~Copyable, @unchecked Sendable {
  /// Sizes of the classes: 1 KiB << class.
  public static var classCount: Int { 8 }

  /// One segment's header, 64 bytes.
  @usableFromInline
  struct Header: BitwiseCopyable {
    @usableFromInline var sizeClass: UInt32
    /// References; 0 while free.
    @usableFromInline var references: UInt32
    /// First address, in bytes from the arena's start.
    @usableFromInline var position: UInt64
    // A cache line of its own.
    var padding: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)
  }

  // Invariant: `headers` has one initialised header for each segment, in the order of their addresses; `blockClass`
  // one entry for each 128 KiB block of the data; the first freeCount[c] of free[c] are the free segments of class c.
  @usableFromInline let headers: UnsafeMutablePointer<Header>
  @usableFromInline let arena: UnsafeMutableRawPointer
  @usableFromInline let dataUnit: UInt32
  @usableFromInline let blocks: Int
  @usableFromInline let blockClass: UnsafeMutablePointer<UInt8>
  @usableFromInline let blockFirst: UnsafeMutablePointer<UInt32>
  @usableFromInline let free: UnsafeMutablePointer<UnsafeMutablePointer<UInt32>>
  @usableFromInline let freeCount: UnsafeMutablePointer<Int>
  /// Segments of each class.
  public let counts: [Int]
  @usableFromInline var references = 0

  /// - Parameters:
  ///   - arena: the arena's first byte, mapped writable for as long as the pool lives.
  ///   - range: the pool's part of it, in bytes from the arena's start.
  ///   - shares: how much of the space each class gets, 1 KiB first, in parts of the sum.
  public init(
    arena: UnsafeMutableRawPointer, range: Range<Int>,
    shares: [Int] = [1, 4, 2, 1, 1, 2, 1, 4]
  ) {
    precondition(shares.count == Self.classCount)
    let blockSize = 128 << 10
    // Every block of 128 KiB needs at most 128 headers.
    let space = range.count / (blockSize + 128 * 64)
    let dataEnd = range.upperBound / blockSize * blockSize
    let blocks = max(0, min(space, (dataEnd - range.lowerBound) / blockSize - 1))
    let dataStart = dataEnd - blocks * blockSize
    self.blocks = blocks
    self.arena = arena
    dataUnit = UInt32(dataStart / Descriptor.unit)
    headers = (arena + range.lowerBound).assumingMemoryBound(to: Header.self)
    blockClass = .allocate(capacity: max(1, blocks))
    blockFirst = .allocate(capacity: max(1, blocks))
    free = .allocate(capacity: Self.classCount)
    freeCount = .allocate(capacity: Self.classCount)

    let total = max(1, shares.reduce(0, +))
    var counts: [Int] = []
    var block = 0
    var index = 0
    for sizeClass in 0..<Self.classCount {
      let last = sizeClass == Self.classCount - 1
      let mine = last ? blocks - block : min(blocks - block, blocks * shares[sizeClass] / total)
      let perBlock = 128 >> sizeClass
      let count = mine * perBlock
      (free + sizeClass).initialize(to: .allocate(capacity: max(1, count)))
      (freeCount + sizeClass).initialize(to: 0)
      for _ in 0..<mine {
        (blockClass + block).initialize(to: UInt8(sizeClass))
        (blockFirst + block).initialize(to: UInt32(index))
        for piece in 0..<perBlock {
          let position = dataStart + block * blockSize + piece * (1024 << sizeClass)
          (headers + index).initialize(
            to: Header(sizeClass: UInt32(sizeClass), references: 0, position: UInt64(position)))
          index += 1
        }
        block += 1
      }
      // Lowest addresses are handed out first.
      let first = block - mine
      for number in (0..<count).reversed() {
        let unit = Int(dataUnit) + first * 128 + number << sizeClass
        free[sizeClass][freeCount[sizeClass]] = UInt32(unit)
        freeCount[sizeClass] += 1
      }
      counts.append(count)
    }
    self.counts = counts
  }

  deinit {
    for sizeClass in 0..<Self.classCount { free[sizeClass].deallocate() }
    free.deallocate()
    freeCount.deallocate()
    blockClass.deallocate()
    blockFirst.deallocate()
  }

  /// References to all segments together: 0 when everything has come back.
  @inlinable public var totalReferences: Int { references }

  /// Free segments of a class.
  public func available(in sizeClass: Int) -> Int { freeCount[sizeClass] }

  /// The smallest class whose segments hold so many bytes, or nil for more than 128 KiB.
  @inlinable
  public static func sizeClass(for byteCount: Int) -> Int? {
    if byteCount <= 1024 { return 0 }
    if byteCount > 128 << 10 { return nil }
    return Int.bitWidth - (byteCount - 1).leadingZeroBitCount - 10
  }

  /// A segment of at least so many bytes, with one reference; nil where none is free.
  @inlinable
  public mutating func allocate(byteCount: Int) -> Segment? {
    guard var sizeClass = Self.sizeClass(for: byteCount) else { return nil }
    while freeCount[sizeClass] == 0 {
      sizeClass += 1
      if sizeClass == Self.classCount { return nil }
    }
    freeCount[sizeClass] &-= 1
    let unit = free[sizeClass][freeCount[sizeClass]]
    let header = self.header(of: unit)
    headers[header].references = 1
    references &+= 1
    return Segment(unit: unit, byteCount: 1024 << sizeClass)
  }

  /// One more reference to an allocated segment.
  @inlinable
  public mutating func retain(_ segment: UInt32) {
    let header = self.header(of: segment)
    precondition(headers[header].references > 0)
    headers[header].references &+= 1
    references &+= 1
  }

  /// One reference less; at the last the segment is free.
  @inlinable
  public mutating func release(_ segment: UInt32) {
    let header = self.header(of: segment)
    let left = headers[header].references
    precondition(left > 0)
    headers[header].references = left &- 1
    references &-= 1
    if left == 1 {
      let sizeClass = Int(blockClass[Int(segment &- dataUnit) >> 7])
      free[sizeClass][freeCount[sizeClass]] = segment
      freeCount[sizeClass] &+= 1
    }
  }

  /// Takes up to `limit` free segments of one class without giving them a reference, for a ``SegmentCache``.
  /// - Returns: how many were written to `units`.
  mutating func takeFree(
    _ sizeClass: Int, limit: Int, into units: UnsafeMutablePointer<UInt32>
  ) -> Int {
    let taken = min(limit, freeCount[sizeClass])
    freeCount[sizeClass] -= taken
    units.update(from: free[sizeClass] + freeCount[sizeClass], count: taken)
    return taken
  }

  /// Takes back what ``takeFree(_:limit:into:)`` gave: segments without a reference.
  mutating func putFree(_ sizeClass: Int, _ units: UnsafePointer<UInt32>, count: Int) {
    (free[sizeClass] + freeCount[sizeClass]).update(from: units, count: count)
    freeCount[sizeClass] += count
  }

  /// Where the headers are: valid as long as the pool.
  @inlinable
  var table: SegmentTable {
    SegmentTable(
      headers: headers, dataUnit: dataUnit, blocks: blocks, blockClass: blockClass,
      blockFirst: blockFirst)
  }

  /// References to a segment, 0 where it is free.
  public func references(to segment: UInt32) -> Int { Int(headers[header(of: segment)].references) }

  /// The segment that holds an address of the pool's data, or nil.
  @inlinable
  public func segment(at position: UInt64) -> Segment? {
    let unit = position / 1024
    if unit < UInt64(dataUnit) { return nil }
    let block = Int(unit - UInt64(dataUnit)) >> 7
    if block >= blocks { return nil }
    let sizeClass = blockClass[block]
    let mask = (UInt32(1) << UInt32(sizeClass)) - 1
    let relative = (UInt32(unit) - dataUnit) & ~mask
    return Segment(unit: dataUnit + relative, byteCount: 1024 << Int(sizeClass))
  }

  /// Where a segment's bytes are in this process.
  @inlinable
  public func address(of segment: Segment) -> UnsafeMutableRawPointer {
    arena + Int(segment.unit) * Descriptor.unit
  }

  @inlinable
  func header(of unit: UInt32) -> Int { table.header(of: unit).index }
}

/// Finds the header of a segment: what of a ``SegmentPool`` never changes. A plain view.
@frozen @usableFromInline
struct SegmentTable: @unchecked Sendable {
  // Invariant: as for SegmentPool, as long as that lives.
  @usableFromInline let headers: UnsafeMutablePointer<SegmentPool.Header>
  @usableFromInline let dataUnit: UInt32
  @usableFromInline let blocks: Int
  @usableFromInline let blockClass: UnsafeMutablePointer<UInt8>
  @usableFromInline let blockFirst: UnsafeMutablePointer<UInt32>

  @inlinable
  init(
    headers: UnsafeMutablePointer<SegmentPool.Header>, dataUnit: UInt32, blocks: Int,
    blockClass: UnsafeMutablePointer<UInt8>, blockFirst: UnsafeMutablePointer<UInt32>
  ) {
    self.headers = headers
    self.dataUnit = dataUnit
    self.blocks = blocks
    self.blockClass = blockClass
    self.blockFirst = blockFirst
  }

  /// The number of a segment's header, and its class; a unit at which no segment begins traps.
  @inlinable @inline(__always)
  func header(of unit: UInt32) -> (index: Int, sizeClass: Int) {
    precondition(unit >= dataUnit)
    let relative = unit &- dataUnit
    let block = Int(relative &>> 7)
    precondition(block < blocks)
    let sizeClass = UInt32(blockClass[block])
    precondition(relative & ((1 &<< sizeClass) &- 1) == 0)
    return (
      Int(blockFirst[block]) &+ Int((relative & 127) &>> sizeClass), Int(sizeClass)
    )
  }

  /// The count of a segment that was taken from the pool's own store of a class.
  @inlinable @inline(__always)
  func referenceWord(of unit: UInt32, sizeClass: Int) -> UnsafeMutableRawPointer {
    let relative = unit &- dataUnit
    let index =
      Int(blockFirst[Int(relative &>> 7)])
      &+ Int((relative & 127) &>> UInt32(truncatingIfNeeded: sizeClass))
    return UnsafeMutableRawPointer(headers + index) + MemoryLayout<UInt32>.size
  }

  /// The count in a segment's header, for atomic access, and its class.
  @inlinable @inline(__always)
  func referenceWord(
    of segment: UInt32
  ) -> (word: UnsafeMutableRawPointer, sizeClass: Int) {
    let (index, sizeClass) = header(of: segment)
    return (
      UnsafeMutableRawPointer(headers + index) + MemoryLayout<UInt32>.size, sizeClass
    )
  }
}

/// A piece of an arena that a pool has handed out.
@frozen
public struct Segment: BitwiseCopyable, Sendable, Equatable {
  /// First address, in units of ``Descriptor/unit`` from the arena's start.
  public var unit: UInt32
  /// Bytes: its class's size.
  public var byteCount: Int

  /// - Parameters:
  ///   - unit: in units of ``Descriptor/unit`` from the arena's start.
  ///   - byteCount: its class's size.
  @inlinable
  public init(unit: UInt32, byteCount: Int) {
    self.unit = unit
    self.byteCount = byteCount
  }
}
