/// What one connection has taken to send and its peer has not acknowledged: (address, length) entries in order, each with
/// one reference to its segment.
///
/// A write that goes on where the last entry ends, in the same segment, extends it and leaves the reference count alone;
/// any other adds an entry and one reference. Acknowledged bytes drop entries, with their references, from the front.
/// A ring that grows when it is full, so that in the long run nothing is allocated. One thread.
@frozen
public struct PendingEntries: ~Copyable {
  @frozen @usableFromInline
  struct Entry {
    @usableFromInline var position: UInt64
    @usableFromInline var byteCount: UInt32
    @usableFromInline let unit: UInt32

    @inlinable
    init(_ range: SendRange) {
      position = range.position
      byteCount = UInt32(truncatingIfNeeded: range.byteCount)
      unit = range.unit
    }
  }

  // Invariant: the pool outlives its lists of entries; it counts them.
  @usableFromInline let state: UnsafeMutablePointer<SendBufferState>
  // Invariant: room for `mask` + 1 entries, a power of two; `count` from `first` on, round the end, are initialised.
  @usableFromInline var entries: UnsafeMutablePointer<Entry>
  @usableFromInline var mask: Int
  @usableFromInline var first = 0
  /// Entries.
  @inlinable public var count: Int { entryCount }
  /// Bytes in all entries.
  @inlinable public var byteCount: Int { bytes }
  @usableFromInline var entryCount = 0
  @usableFromInline var bytes = 0

  /// - Parameters:
  ///   - pool: whose segments are sent; it outlives this.
  ///   - capacity: entries at first, a power of two.
  public init(_ pool: borrowing SendBufferPool, capacity: Int = 16) {
    precondition(capacity > 0 && capacity & (capacity - 1) == 0)
    state = pool.state
    entries = .allocate(capacity: capacity)
    mask = capacity - 1
    state.pointee.users += 1
  }

  deinit {
    for index in 0..<count { state.pointee.pool.release(entries[(first &+ index) & mask].unit) }
    entries.deallocate()
    state.pointee.users -= 1
  }

  /// Whether everything is acknowledged.
  @inlinable public var isEmpty: Bool { count == 0 }

  /// An entry's place, in bytes from the arena's start, and its length.
  public subscript(index: Int) -> (position: UInt64, byteCount: Int) {
    precondition(index >= 0 && index < count)
    let entry = entries[(first &+ index) & mask]
    return (entry.position, Int(entry.byteCount))
  }

  /// Takes bytes by their address.
  /// - Throws: ``SendBufferError`` where they are not all in one segment that is in use; nothing has changed then.
  @inlinable
  public mutating func append(
    _ address: UnsafeRawPointer, byteCount: Int
  ) throws(SendBufferError) {
    append(try state.pointee.range(at: address, byteCount: byteCount))
  }

  /// Takes bytes; none are no entry. A segment that has been freed since its range was made traps.
  @inlinable
  public mutating func append(_ range: SendRange) {
    if range.byteCount == 0 { return }
    bytes &+= range.byteCount
    if count > 0 {
      let last = (first &+ count &- 1) & mask
      if entries[last].unit == range.unit,
        entries[last].position &+ UInt64(entries[last].byteCount) == range.position
      {
        entries[last].byteCount &+= UInt32(truncatingIfNeeded: range.byteCount)
        state.pointee.counts.extended &+= 1
        return
      }
    }
    state.pointee.pool.retain(range.unit)
    if count > mask { grow() }
    (entries + (first &+ count) & mask).initialize(to: Entry(range))
    entryCount &+= 1
    state.pointee.counts.entries &+= 1
  }

  /// The peer has acknowledged so many bytes more: from the front, no more than there are.
  /// - Returns: bytes that were there.
  @inlinable @discardableResult
  public mutating func acknowledge(_ acknowledged: Int) -> Int {
    precondition(acknowledged >= 0)
    let all = min(acknowledged, byteCount)
    var left = all
    bytes &-= all
    while left > 0 {
      let entry = entries[first]
      if left < entry.byteCount {
        entries[first].position &+= UInt64(left)
        entries[first].byteCount &-= UInt32(left)
        break
      }
      left &-= Int(entry.byteCount)
      state.pointee.pool.release(entry.unit)
      first = (first &+ 1) & mask
      entryCount &-= 1
    }
    return all
  }

  /// Drops all entries: the connection is closed or reset.
  public mutating func removeAll() { acknowledge(byteCount) }

  @inline(never) @usableFromInline
  mutating func grow() {
    let capacity = (mask &+ 1) * 2
    let larger = UnsafeMutablePointer<Entry>.allocate(capacity: capacity)
    for index in 0..<count { (larger + index).initialize(to: entries[(first &+ index) & mask]) }
    entries.deallocate()
    entries = larger
    mask = capacity - 1
    first = 0
  }
}
