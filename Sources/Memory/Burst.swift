/// A fixed buffer of descriptors that one burst fills and the next stage reads. Made once, outside the data path; owns its
/// memory where it is not given any. One thread at a time.
public struct Burst: ~Copyable, @unchecked Sendable {
  // Invariant: `slots` has room for `capacity` descriptors; the first `used` are initialised.
  @usableFromInline let slots: UnsafeMutablePointer<Descriptor>
  // Beside each other in one word: a queue pair that holds bursts is copied with all of them where it is looked at.
  @usableFromInline let slotCapacity: UInt32
  private let ownsSlots: Bool
  @usableFromInline var used: Int

  /// Slots in all.
  @inlinable public var capacity: Int { @_noLocks get { Int(slotCapacity) } }

  /// - Parameter capacity: slots, at least 1.
  public init(capacity: Int) {
    precondition(capacity > 0 && capacity <= 1 << 20)
    slots = .allocate(capacity: capacity)
    slots.initialize(repeating: Descriptor(segment: 0), count: capacity)
    slotCapacity = UInt32(capacity)
    used = 0
    ownsSlots = true
  }

  /// A burst in memory that outlives it, such as a record of what is handed over. It begins empty, whatever is there.
  /// - Parameters:
  ///   - storage: room for `capacity` descriptors.
  ///   - capacity: slots, at least 1.
  public init(storage: UnsafeMutablePointer<Descriptor>, capacity: Int) {
    precondition(capacity > 0 && capacity <= 1 << 20)
    slots = storage
    slotCapacity = UInt32(capacity)
    used = 0
    ownsSlots = false
  }

  deinit { if ownsSlots { slots.deallocate() } }

  /// Slots in use.
  @inlinable public var count: Int { @_noLocks get { used } }
  /// Whether no slot is in use.
  @inlinable public var isEmpty: Bool { @_noLocks get { used == 0 } }
  /// Slots that are still free.
  @inlinable public var room: Int { @_noLocks get { capacity &- used } }

  /// A slot in use; any other index traps.
  @inlinable
  public subscript(index: Int) -> Descriptor {
    @_noLocks get {
      precondition(UInt(bitPattern: index) < UInt(bitPattern: used))
      return slots[index]
    }
    @_noLocks set {
      precondition(UInt(bitPattern: index) < UInt(bitPattern: used))
      slots[index] = newValue
    }
  }

  /// The last slot of the packet that begins at `first`; nil where the rest of it is not here.
  @inlinable @_noLocks
  public func endOfPacket(from first: Int) -> Int? {
    var end = first
    while self[end].flags.contains(.more) {
      end &+= 1
      if end == used { return nil }
    }
    return end
  }

  /// Bytes in the slots from `first` to `last`; none where there are no slots.
  @inlinable @_noLocks
  public func byteCount(from first: Int, through last: Int) -> Int {
    var bytes = 0
    var index = first
    while index <= last {
      bytes &+= Int(self[index].length)
      index &+= 1
    }
    return bytes
  }

  /// Adds a slot; the burst must have room.
  @inlinable @_noLocks
  public mutating func append(_ descriptor: Descriptor) {
    precondition(used < capacity)
    slots[used] = descriptor
    used &+= 1
  }

  /// The first slot; as many as ``count`` says are in use.
  @inlinable public var start: UnsafePointer<Descriptor> {
    @_noLocks get { UnsafePointer(slots) }
  }
  /// The place behind the last slot in use, where up to ``room`` slots may be written before they are added.
  @inlinable public var end: UnsafeMutablePointer<Descriptor> {
    @_noLocks get { slots + used }
  }

  /// Adds the slots that were written from ``end`` on; the burst must have room.
  @inlinable @_noLocks
  public mutating func append(written count: Int) {
    precondition(count >= 0 && count <= capacity &- used)
    used &+= count
  }

  /// Drops all slots.
  @inlinable @_noLocks
  public mutating func removeAll() { used = 0 }

  /// Drops slots from the end.
  @inlinable @_noLocks
  public mutating func truncate(to count: Int) {
    precondition(count >= 0 && count <= used)
    used = count
  }

  /// Moves slots from the end into another burst, as many as that has room for.
  @inlinable @_noLocks
  public mutating func move(into other: inout Burst) {
    while used > 0 && other.room > 0 {
      used &-= 1
      other.append(slots[used])
    }
  }

  /// Drops the first `count` slots and moves the rest to the front.
  @inlinable @_noLocks
  public mutating func removeFirst(_ count: Int) {
    precondition(count >= 0 && count <= used)
    let left = used &- count
    if count > 0 && left > 0 {
      UnsafeMutableRawPointer(slots).copyMemory(
        from: slots + count, byteCount: left &* MemoryLayout<Descriptor>.stride)
    }
    used = left
  }

  /// Drops slots from the middle; those behind them move up.
  @inlinable @_noLocks
  public mutating func remove(from first: Int, through last: Int) {
    precondition(first >= 0 && first <= last && last < used)
    let behind = used &- last &- 1
    if behind > 0 {
      UnsafeMutableRawPointer(slots + first).copyMemory(
        from: slots + last + 1, byteCount: behind &* MemoryLayout<Descriptor>.stride)
    }
    used &-= last &- first &+ 1
  }
}
