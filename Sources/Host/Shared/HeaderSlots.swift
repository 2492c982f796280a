import Memory

/// Places in the host's arena for the headers of packets that instances send, one for each packet that is with the device.
/// A place's number is the packet's tag towards the driver; what it was for is written down beside it. One thread.
@usableFromInline
struct HeaderSlots: ~Copyable {
  /// A packet that is with the device.
  @usableFromInline
  struct Flight {
    /// Of the instance that sent it; ``none`` while the place is free.
    var instance: UInt8
    /// Which of its two counts of packets it is in.
    var epoch: UInt8
    /// What the instance calls it.
    var tag: UInt16
    /// The instance's receive segment that is sent in place, or ``noSegment``.
    var segment: UInt32
  }

  static let none: UInt8 = 0xff
  static let noSegment: UInt32 = .max
  /// Bytes of a place: headroom for the driver, then the headers.
  static let byteCount = 256

  // Invariant: `arena + first` points at `capacity` places; the first `freeCount` of `free` are the places that no packet
  // has, each once; `flights` has `capacity` elements.
  private let arena: UnsafeMutableRawPointer
  private let first: Int
  @usableFromInline let free: UnsafeMutablePointer<UInt16>
  @usableFromInline let flights: UnsafeMutablePointer<Flight>
  private(set) var freeCount: Int
  let capacity: Int

  /// - Parameters:
  ///   - arena: the host's arena in this process.
  ///   - first: where the places begin, a multiple of 256, in bytes from there.
  ///   - byteCount: what there is for them.
  init(arena: UnsafeMutableRawPointer, first: Int, byteCount: Int) {
    precondition(first % Self.byteCount == 0)
    self.arena = arena
    self.first = first
    capacity = min(byteCount / Self.byteCount, 4096)
    free = .allocate(capacity: max(1, capacity))
    flights = .allocate(capacity: max(1, capacity))
    for index in 0..<capacity {
      (free + index).initialize(to: UInt16(capacity - 1 - index))
      (flights + index).initialize(
        to: Flight(instance: Self.none, epoch: 0, tag: 0, segment: Self.noSegment))
    }
    freeCount = capacity
  }

  @inlinable
  deinit {
    free.deallocate()
    flights.deallocate()
  }

  /// Where the headers of the next packet go. There must be a free place.
  var nextBytes: UnsafeMutableRawPointer { arena + Int(nextPosition) }

  /// The same as a position in the host's arena.
  var nextPosition: UInt64 {
    precondition(freeCount > 0)
    return UInt64(first + Int(free[freeCount &- 1]) * Self.byteCount + Descriptor.headroom)
  }

  /// The next place is the packet's until ``land(_:)``.
  /// - Returns: the tag under which the driver gets it.
  mutating func take(for flight: Flight) -> UInt16 {
    precondition(freeCount > 0)
    freeCount &-= 1
    let tag = free[freeCount]
    flights[Int(tag)] = flight
    return tag
  }

  /// The device has done with a packet. A driver that names one that it does not have is a defect: it traps.
  mutating func land(_ tag: UInt16) -> Flight {
    precondition(Int(tag) < capacity)
    let flight = flights[Int(tag)]
    precondition(flight.instance != Self.none)
    flights[Int(tag)].instance = Self.none
    free[freeCount] = tag
    freeCount &+= 1
    return flight
  }
}
