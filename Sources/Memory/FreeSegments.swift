import CLinux

/// Free segments by class, last in first out: what a pool and the cache of a thread do for nearly every segment. What is
/// not so simple (no segment left, further references, no room) is told to the caller. One thread.
@usableFromInline
struct FreeSegments: ~Copyable {
  @frozen @usableFromInline
  struct List {
    // Invariant: the first `count` of the `capacity` places are units where a segment of the class begins, of which only
    // this list knows, and whose header has no reference.
    @usableFromInline var units: UnsafeMutablePointer<UInt32>
    @usableFromInline var count: Int
    @usableFromInline var capacity: Int
  }

  @usableFromInline let table: SegmentTable
  // Invariant: one list for each class.
  @usableFromInline let lists: UnsafeMutablePointer<List>

  /// - Parameter capacities: for each class, how many segments can be kept.
  init(_ table: SegmentTable, capacities: [Int]) {
    self.table = table
    lists = .allocate(capacity: capacities.count)
    for (sizeClass, capacity) in capacities.enumerated() {
      let units = UnsafeMutablePointer<UInt32>.allocate(capacity: max(1, capacity))
      units.initialize(repeating: 0, count: max(1, capacity))
      (lists + sizeClass).initialize(to: List(units: units, count: 0, capacity: capacity))
    }
  }

  @inlinable
  deinit {
    for sizeClass in 0..<SegmentPool.classCount { lists[sizeClass].units.deallocate() }
    lists.deallocate()
  }

  /// A segment of the class, with one reference; nil where none is left.
  @inlinable @inline(__always) @_noLocks
  mutating func allocate(_ sizeClass: Int) -> UInt32? {
    let left = lists[sizeClass].count &- 1
    if left < 0 { return nil }
    lists[sizeClass].count = left
    let unit = lists[sizeClass].units[left]
    table.ownHeader(unit).lend(sizeClass)
    return unit
  }

  /// Appends up to `limit` segments of the class, each with one reference and `byteCount` as its slot's length. The burst
  /// has room for them.
  /// - Returns: how many there were.
  @inlinable @inline(__always) @_noLocks
  mutating func allocate(
    _ sizeClass: Int, byteCount: UInt32, upTo limit: Int, into burst: inout Burst
  ) -> Int {
    let taken = min(limit, lists[sizeClass].count)
    let left = lists[sizeClass].count &- taken
    lists[sizeClass].count = left
    let units = lists[sizeClass].units + left
    let slots = burst.end
    for index in 0..<taken {
      let unit = units[index]
      table.ownHeader(unit).lend(sizeClass)
      (slots + index).store(place: UInt64(unit), rest: UInt64(byteCount))
    }
    burst.append(written: taken)
    return taken
  }

  /// Takes the only reference to a segment.
  /// - Returns: false where there are further ones, or no room; nothing has changed then.
  @inlinable @inline(__always) @_noLocks
  mutating func release(alone unit: UInt32) -> Bool {
    let header = table.header(unit)
    let word = acquire_load64(header)
    let sizeClass = Int(word & 7)
    if word != SegmentTable.alone(sizeClass) { return false }
    let count = lists[sizeClass].count
    if count == lists[sizeClass].capacity { return false }
    header.free(sizeClass)
    lists[sizeClass].units[count] = unit
    lists[sizeClass].count = count &+ 1
    return true
  }

  /// Takes the only reference to the segment of each slot from `index` on, as long as they are of one class, have no
  /// further reference, and find room.
  /// - Returns: the first slot that is not so simple, or the burst's count.
  @inlinable @inline(__always) @_noLocks
  mutating func release(alone burst: borrowing Burst, from start: Int) -> Int {
    let slots = burst.slots
    let sizeClass = Int(acquire_load64(table.header(slots[start].segment)) & 7)
    let alone = SegmentTable.alone(sizeClass)
    let units = lists[sizeClass].units
    var count = lists[sizeClass].count
    let end = min(burst.count, start &+ lists[sizeClass].capacity &- count)
    var index = start
    while index < end {
      let unit = slots[index].segment
      let header = table.header(unit)
      if acquire_load64(header) != alone { break }
      header.free(sizeClass)
      units[count] = unit
      count &+= 1
      index &+= 1
    }
    lists[sizeClass].count = count
    return index
  }

  /// Moves up to `limit` segments to another store's list.
  /// - Returns: how many there were.
  func move(_ sizeClass: Int, upTo limit: Int, to other: borrowing FreeSegments) -> Int {
    let from = lists[sizeClass]
    let to = other.lists[sizeClass]
    let count = min(limit, min(from.count, to.capacity - to.count))
    (to.units + to.count).update(from: from.units + (from.count - count), count: count)
    lists[sizeClass].count -= count
    other.lists[sizeClass].count += count
    return count
  }

  /// Puts in what no list knows of yet.
  mutating func put(_ unit: UInt32, _ sizeClass: Int) {
    lists[sizeClass].units[lists[sizeClass].count] = unit
    lists[sizeClass].count += 1
  }

  /// Puts in what no list knows of yet, to be handed out after all others.
  /// - Parameters:
  ///   - units: the last one is handed out first.
  ///   - capacity: for how many segments of the class there has to be room.
  mutating func putBelow(_ units: some Collection<UInt32>, _ sizeClass: Int, capacity: Int) {
    let list = lists[sizeClass]
    let target =
      capacity > list.capacity
      ? UnsafeMutablePointer<UInt32>.allocate(capacity: capacity) : list.units
    if target != list.units {
      target.initialize(repeating: 0, count: capacity)
      lists[sizeClass].capacity = capacity
    }
    (target + units.count).update(from: list.units, count: list.count)
    for (index, unit) in units.enumerated() { target[index] = unit }
    if target != list.units { list.units.deallocate() }
    lists[sizeClass].units = target
    lists[sizeClass].count += units.count
  }

  /// Takes out all from a unit on.
  mutating func remove(from first: UInt32) {
    for sizeClass in 0..<SegmentPool.classCount {
      let list = lists[sizeClass]
      var kept = 0
      for index in 0..<list.count where list.units[index] < first {
        list.units[kept] = list.units[index]
        kept += 1
      }
      lists[sizeClass].count = kept
    }
  }
}
