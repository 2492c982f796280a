/// Several packets that cross a channel as one: a chain of slots, of which the last of each packet but the last is marked
/// ``Descriptor/Flags/aggregate``. It has one tag, its first packet's; a ring moves it whole or not at all; what is sent
/// as one is completed once, after its last packet. An aggregate holds whole packets and no other aggregate: there is
/// nothing in its form that could say so.
extension Burst {
  /// Joins the whole packets from a slot to the burst's end into as few aggregates as there can be, in their order. A packet
  /// that is too large to be with another one stays as it is.
  /// - Parameter first: where a packet begins, or the burst's end.
  /// - Returns: aggregates and single packets that there are now.
  @inlinable @discardableResult @_noLocks
  public mutating func joinPackets(from first: Int = 0) -> Int {
    precondition(first >= 0 && first <= used)
    // Invariant: `slots` has `used` initialised descriptors; `at` and `end` are below that.
    var joined = 0
    var start = first
    var at = first
    var previous = -1
    while at < used {
      var end = at
      while end < used && slots[end].flags.contains(.more) { end &+= 1 }
      // The rest of the last one is not here.
      if end == used { break }
      if previous >= 0 && end &- start < Descriptor.maximumSlots {
        slots[previous].flags.rawValue |= Self.joint
      } else {
        joined &+= 1
        start = at
      }
      previous = end
      at = end &+ 1
    }
    return joined
  }

  /// Opens every aggregate of the burst, in place: its packets are ordinary ones then, each with the aggregate's tag. What
  /// comes from somebody else is checked before anything is changed.
  /// - Returns: packets in the burst.
  /// - Throws: what is wrong with the first bad aggregate; those before it are open.
  @inlinable @discardableResult @_noLocks
  public mutating func openAggregates() throws(AggregateError) -> Int {
    var packets = 0
    var at = 0
    while at < used {
      let opened = try openAggregate(from: at)
      packets &+= opened.packets
      at = opened.last &+ 1
    }
    return packets
  }

  /// Opens one aggregate in place, or finds that it is an ordinary packet.
  /// - Parameter first: its first slot.
  /// - Returns: its packets, at least 1, and its last slot.
  /// - Throws: what is wrong with it; nothing has changed then.
  @inlinable @_noLocks
  public mutating func openAggregate(
    from first: Int
  ) throws(AggregateError) -> (packets: Int, last: Int) {
    precondition(first >= 0 && first < used)
    var joints = 0
    var end = first
    var begins = true
    while true {
      let flags = slots[end].flags
      if flags.contains(.offload) && !begins { throw .misplacedMetadata }
      let isJoint = flags.contains(.aggregate)
      if isJoint {
        if flags.contains(.offload) { throw .packetWithoutPieces }
        if !flags.contains(.more) { throw .nothingBehind }
        joints &+= 1
      }
      begins = isJoint
      if !flags.contains(.more) {
        if flags.contains(.offload) && joints > 0 { throw .packetWithoutPieces }
        break
      }
      end &+= 1
      if end == used { throw .unterminated }
    }
    if joints == 0 { return (1, end) }
    if end &- first >= Descriptor.maximumSlots { throw .tooLong(slots: end &- first &+ 1) }
    let tag = slots[first].tag
    for index in first...end {
      slots[index].tag = tag
      if slots[index].flags.contains(.aggregate) { slots[index].flags.rawValue &= ~Self.joint }
    }
    return (joints &+ 1, end)
  }

  @inlinable static var joint: UInt16 {
    @_noLocks get { Descriptor.Flags.aggregate.rawValue | Descriptor.Flags.more.rawValue }
  }
}

/// An aggregate that cannot be opened.
public enum AggregateError: Error, Equatable, Sendable {
  /// Its last slot is not here.
  case unterminated
  /// It has more than ``Descriptor/maximumSlots`` slots.
  case tooLong(slots: Int)
  /// Its last slot says that another packet follows.
  case nothingBehind
  /// One of its packets is metadata alone.
  case packetWithoutPieces
  /// Metadata stand behind a piece of the packet that they are about.
  case misplacedMetadata
}

extension AggregateError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .unterminated: "an aggregate of packets without an end"
    case .tooLong(let slots):
      "an aggregate of \(slots) slots, where \(Descriptor.maximumSlots) are the most"
    case .nothingBehind: "an aggregate that ends where another packet should follow"
    case .packetWithoutPieces: "a packet of metadata without bytes in an aggregate"
    case .misplacedMetadata: "offload metadata in the middle of a packet"
    }
  }
}
