import Glibc

/// A pool that grows and shrinks at its end while its segments are in use.
///
/// What is to be given up is not handed out any more. Of each of its segments that is in use the pool takes a reference
/// itself: none of them becomes free, and nothing changes for those who allocate and release.
extension SegmentPool {
  /// The blocks at the end that are to be given up.
  struct Leaving {
    /// Blocks that stay.
    let blockCount: Int
    let firstUnit: UInt32
    /// Segments that somebody still has.
    var inUse = 0
  }

  private var start: Int { Int(free.table.firstUnit) * Descriptor.unit }

  /// Where the pool's segments end, in bytes from the arena's start.
  public var end: Int { start + blockCount * Self.blockSize }

  /// Takes the memory up to `end` into use: its segments are handed out after all others. What was to be given up stays.
  /// - Parameter end: in bytes from the arena's start, all of it mapped; no more than the pool's maximum.
  public mutating func grow(to end: Int) {
    keep()
    let blocks = (end - start) / Self.blockSize
    precondition(blocks * 128 <= Int(free.table.unitCount))
    if blocks > blockCount { addBlocks(to: blocks) }
  }

  /// From now on hands out nothing that reaches beyond `end`. A second call moves the end.
  public mutating func beginShrink(to end: Int) {
    keep()
    let blocks = max(0, (end - start) / Self.blockSize)
    if blocks >= blockCount { return }
    let firstUnit = free.table.firstUnit + UInt32(blocks * 128)
    leaving = Leaving(blockCount: blocks, firstUnit: firstUnit)
    free.remove(from: firstUnit)
    forEachSegment(from: blocks) { pool, unit, _ in
      let header = pool.free.table.header(unit)
      if header.pointee.references == 0 { return }
      header.pointee.references += 1
      pool.leaving?.inUse += 1
    }
  }

  /// Segments that are to be given up and that somebody still has.
  public var leavingCount: Int { leaving?.inUse ?? 0 }

  /// Where the pool could end now, in bytes from the arena's start: behind it nobody has anything. Looks at every segment
  /// that is to be given up.
  public var freeEnd: Int {
    guard let leaving else { return end }
    var block = blockCount
    while block > leaving.blockCount {
      let sizeClass = Int(free.table.blocks[block - 1])
      let isFree = (0..<128 >> sizeClass).allSatisfy {
        let unit = free.table.firstUnit + UInt32((block - 1) * 128 + $0 << sizeClass)
        return free.table.header(unit).pointee.references <= 1
      }
      if !isFree { break }
      block -= 1
    }
    return start + block * Self.blockSize
  }

  /// Gives up what ``beginShrink(to:)`` has named: its memory may be unmapped.
  /// - Returns: false where somebody still has some of it; nothing has changed then.
  public mutating func finishShrink() -> Bool {
    guard let leaving else { return true }
    if leaving.inUse > 0 { return false }
    for block in leaving.blockCount..<blockCount {
      let sizeClass = Int(free.table.blocks[block])
      counts[sizeClass] -= 128 >> sizeClass
      free.table.blocks[block] = SegmentTable.absent
    }
    let headers = UnsafeMutableRawPointer(free.table.headers)
    let gone = (blockCount - leaving.blockCount) * Self.blockHeaderBytes
    (headers + leaving.blockCount * Self.blockHeaderBytes).initializeMemory(
      as: UInt8.self, repeating: 0, count: gone)
    if hasSeparateHeaders {
      // Two whole pages for each block.
      madvise(headers + leaving.blockCount * Self.blockHeaderBytes, gone, MADV_DONTNEED)
    }
    blockCount = leaving.blockCount
    self.leaving = nil
    return true
  }

  /// Gives up nothing: what ``beginShrink(to:)`` has named is handed out again.
  public mutating func keep() {
    guard let leaving else { return }
    self.leaving = nil
    var kept = [[UInt32]](repeating: [], count: Self.classCount)
    forEachSegment(from: leaving.blockCount) { pool, unit, sizeClass in
      let header = pool.free.table.header(unit)
      if header.pointee.references > 0 { header.pointee.references -= 1 }
      if header.pointee.references == 0 { kept[sizeClass].append(unit) }
    }
    for (sizeClass, units) in kept.enumerated() where !units.isEmpty {
      free.putBelow(units.reversed(), sizeClass, capacity: counts[sizeClass])
    }
  }

  func isLeaving(_ unit: UInt32) -> Bool { leaving.map { unit >= $0.firstUnit } ?? false }

  /// Only the pool's own reference to a segment is left.
  @_noLocks
  mutating func noteLeft(_ unit: UInt32) {
    guard let firstUnit = leaving?.firstUnit, unit >= firstUnit else { return }
    leaving?.inUse &-= 1
  }

  /// Cuts blocks into segments, up to so many blocks in all.
  mutating func addBlocks(to newCount: Int) {
    let added = newCount - blockCount
    let total = max(1, shares.reduce(0, +))
    var block = blockCount
    for sizeClass in 0..<Self.classCount {
      let isLast = sizeClass == Self.classCount - 1
      let share = isLast ? added : added * shares[sizeClass] / total
      let last = min(newCount, block + share)
      let first = free.table.firstUnit + UInt32(block * 128)
      let number = (last - block) * 128 >> sizeClass
      (free.table.blocks + block).update(repeating: UInt8(sizeClass), count: last - block)
      for index in 0..<number {
        let unit = first + UInt32(index << sizeClass)
        free.table.header(unit).initialize(
          to: SegmentTable.Header(sizeClass: sizeClass, position: Int(unit) * Descriptor.unit))
      }
      counts[sizeClass] += number
      // Lowest addresses are handed out first.
      free.putBelow(
        (0..<number).reversed().map { first + UInt32($0 << sizeClass) }, sizeClass,
        capacity: counts[sizeClass])
      block = last
    }
    blockCount = newCount
  }

  private mutating func forEachSegment(
    from first: Int, _ body: (inout SegmentPool, UInt32, Int) -> Void
  ) {
    for block in first..<blockCount {
      let sizeClass = Int(free.table.blocks[block])
      for index in 0..<128 >> sizeClass {
        body(&self, free.table.firstUnit + UInt32(block * 128 + index << sizeClass), sizeClass)
      }
    }
  }
}
