import Channel
import Memory

/// A packet that a stage has, or that the device has from a stage.
struct StagedFlight: BitwiseCopyable {
  enum Holder: UInt8 { case nobody, stage, device, delivery }
  /// What becomes of its memory at its end.
  enum Origin: UInt8 {
    /// Segments of the host's.
    case received
    /// An instance sends it: the tag is handed back.
    case sent
    /// A segment of the host's, for a packet of the stage's own.
    case spare
  }

  var holder = Holder.nobody
  var origin = Origin.received
  /// Which way it went when it entered.
  var way = StagedPacket.Way.receive
  var place: UInt8 = 0
  /// Stages that it has been through.
  var passed: UInt8 = 0
  var pieces: UInt8 = 0
  /// Of a packet that an instance sends: the driver's tag.
  var tag: UInt16 = 0
  /// Where its head may lie, in bytes from the start of the host's arena.
  var lower: UInt64 = 0
  var upper: UInt64 = 0
  /// Bytes behind the head.
  var unseen: UInt32 = 0
  /// When it entered, in nanoseconds of the monotonic clock; 0 where that is not counted.
  var since: UInt64 = 0
  /// As captures number it.
  var number: UInt32 = 0
}

/// All packets that stages of one queue have, by number. One thread.
struct StagedFlights: ~Copyable {
  // Invariant: `flights` has `capacity` initialised elements; `slots` room for `maximumSlots` for each; the first `freeCount`
  // of `free` are the numbers of those that nobody holds, each once.
  private let flights: UnsafeMutablePointer<StagedFlight>
  private let slots: UnsafeMutablePointer<Descriptor>
  private let free: UnsafeMutablePointer<UInt16>
  private(set) var freeCount: Int

  static let capacity = StagedPacket.maximumPackets

  init() {
    flights = .allocate(capacity: Self.capacity)
    flights.initialize(repeating: StagedFlight(), count: Self.capacity)
    // A megabyte, which costs nothing before stages have packets.
    slots = .allocate(capacity: Self.capacity * Descriptor.maximumSlots)
    free = .allocate(capacity: Self.capacity)
    for index in 0..<Self.capacity {
      (free + index).initialize(to: UInt16(Self.capacity - 1 - index))
    }
    freeCount = Self.capacity
  }

  deinit {
    flights.deallocate()
    slots.deallocate()
    free.deallocate()
  }

  subscript(number: Int) -> StagedFlight {
    get {
      precondition(UInt(bitPattern: number) < UInt(Self.capacity))
      return flights[number]
    }
    set {
      precondition(UInt(bitPattern: number) < UInt(Self.capacity))
      flights[number] = newValue
    }
  }

  /// The packet's pieces, the head first.
  func pieces(_ number: Int) -> UnsafeMutablePointer<Descriptor> {
    precondition(UInt(bitPattern: number) < UInt(Self.capacity))
    return slots + number &* Descriptor.maximumSlots
  }

  /// A number that nobody has; there must be one.
  mutating func take() -> Int {
    precondition(freeCount > 0)
    freeCount &-= 1
    return Int(free[freeCount])
  }

  mutating func giveBack(_ number: Int) {
    precondition(flights[number].holder != .nobody)
    flights[number].holder = .nobody
    free[freeCount] = UInt16(truncatingIfNeeded: number)
    freeCount &+= 1
  }
}
