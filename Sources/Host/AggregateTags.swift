import Memory

/// Aggregates that were opened and whose packets the device still has. All packets of one have its tag; the completions of
/// all but the last are for nobody. One thread.
@usableFromInline
struct AggregateTags: ~Copyable, @unchecked Sendable {
  // Invariant: one initialised byte for each tag that there is: how many completions with it are still to be kept back. An
  // aggregate has at most `Descriptor.maximumSlots` packets, and a tag one aggregate at a time.
  @usableFromInline let waiting: UnsafeMutablePointer<UInt8>
  /// The sum of all of them.
  @usableFromInline var total = 0

  init() {
    waiting = .allocate(capacity: 1 << 16)
    waiting.initialize(repeating: 0, count: 1 << 16)
  }

  @inlinable
  deinit { waiting.deallocate() }

  /// An aggregate of more than one packet goes to the device.
  /// - Returns: false where another one with this tag is there already.
  @inlinable
  mutating func begin(_ tag: UInt16, packets: Int) -> Bool {
    if waiting[Int(tag)] != 0 { return false }
    waiting[Int(tag)] = UInt8(truncatingIfNeeded: packets &- 1)
    total &+= packets &- 1
    return true
  }

  /// A packet is done with.
  /// - Returns: whether its tag is to be completed: not while more of its aggregate is to come.
  @inlinable @inline(__always)
  mutating func finish(_ tag: UInt16) -> Bool {
    if waiting[Int(tag)] == 0 { return true }
    waiting[Int(tag)] &-= 1
    total &-= 1
    return false
  }

  /// Takes out completions that are for nobody.
  /// - Parameter first: those before it were looked at before.
  @inlinable @inline(never)
  mutating func keepBack(_ completed: inout Burst, from first: Int) {
    var kept = first
    for index in first..<completed.count {
      if !finish(completed[index].tag) { continue }
      completed[kept] = completed[index]
      kept &+= 1
    }
    completed.truncate(to: kept)
  }
}
