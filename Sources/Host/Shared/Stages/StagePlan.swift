import Channel

/// Which stages there are, and what goes through them: sets of places, a bit for each. The lowest place is the nearest to the
/// wire. A plain value; it changes as a whole, between two turns.
@usableFromInline
struct StagePlan: BitwiseCopyable {
  /// Stages that there are to be, whether or not their processes run.
  var planned: UInt8 = 0
  /// Those that get all packets from the wire, and all to the wire.
  var receive: UInt8 = 0
  var transmit: UInt8 = 0
  /// Those without which packets are dropped.
  var failsClosed: UInt8 = 0

  static let maximumStages = 8

  @usableFromInline var isEmpty: Bool { planned == 0 }

  /// The next stage of those that get all packets; nil where none is left.
  /// - Parameter passed: stages that the packet has been through, or need not go through.
  func next(_ way: StagedPacket.Way, passed: UInt8) -> Int? {
    switch way {
    case .receive:
      let left = receive & ~passed
      return left == 0 ? nil : left.trailingZeroBitCount
    case .transmit:
      let left = transmit & ~passed
      return left == 0 ? nil : 7 &- left.leadingZeroBitCount
    case .none: return nil
    }
  }

  /// Stages that a packet need not go through that begins at one: those behind it.
  static func behind(_ place: Int, _ way: StagedPacket.Way) -> UInt8 {
    let upTo = UInt8(truncatingIfNeeded: (2 &<< place) &- 1)
    return way == .transmit ? ~(upTo &>> 1) : upTo
  }
}
