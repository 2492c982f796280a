import Memory

/// How the other end broke the channel's rules, or why a channel cannot be attached.
public enum ChannelError: Error, Equatable, Sendable {
  /// An index moved further than the ring has slots, or backwards.
  case indexJump(from: UInt32, to: UInt32, slots: Int)
  /// A packet that goes on for more pieces than any may have.
  case endlessPacket
  case badLayout(queues: Int, slots: Int)
  /// The memory's header does not say what was agreed.
  case foreign(magic: UInt32, version: UInt32)
  case memory(MemoryError)
}

extension ChannelError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .indexJump(let from, let to, let slots):
      "a ring's index went from \(from) to \(to), with \(slots) slots"
    case .endlessPacket: "a packet has more than \(Descriptor.maximumSlots) pieces"
    case .badLayout(let queues, let slots): "no channel has \(queues) queues of \(slots) slots"
    case .foreign(let magic, let version):
      "the channel's memory begins with \(magic), version \(version): not this version of Martlet"
    case .memory(let error): error.description
    }
  }
}
