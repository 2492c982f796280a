import CLinux

/// Why a driver host has closed an instance's channel. Raw values cross process boundaries: they do not change.
public enum EndReason: UInt32, Sendable, CaseIterable {
  /// The channel goes on, or its owner has merely been asked to end.
  case none = 0
  /// A ring's index went backwards, or further than the ring has slots.
  case indexJump = 1
  /// A packet of more pieces than any may have.
  case endlessPacket = 2
  /// A segment was given back, or sent in place, that is not the instance's.
  case notItsSegment = 3
  /// A piece to be sent lies outside of what the instance may send.
  case outsideItsMemory = 4
  /// Offload metadata that makes no sense, or asks for what the interface does not offer.
  case badOffload = 5
  /// Its memory has gone away under the host.
  case lostMemory = 6
  /// Its supervisor has taken it off the interface.
  case detached = 7
  /// An aggregate that is none, or with the tag of one that is not done with.
  case badAggregate = 8

  /// For messages between processes: one word.
  public var name: String {
    switch self {
    case .none: "none"
    case .indexJump: "index_jump"
    case .endlessPacket: "endless_packet"
    case .notItsSegment: "not_its_segment"
    case .outsideItsMemory: "outside_its_memory"
    case .badOffload: "bad_offload"
    case .lostMemory: "lost_memory"
    case .detached: "detached"
    case .badAggregate: "bad_aggregate"
    }
  }
}

/// The two words by which a channel is closed. A plain view of the channel's memory, which outlives it.
@frozen
public struct ChannelEnd: @unchecked Sendable {
  // Invariant: points at the channel's header page.
  @usableFromInline let header: UnsafeMutableRawPointer

  init(header: UnsafeMutableRawPointer) { self.header = header }

  /// Host: closes the channel for a reason that the instance can read. Any thread; the first reason stays.
  public func close(_ reason: EndReason) {
    if relaxed_load32(header + ChannelLayout.endReason) == 0 {
      relaxed_store32(header + ChannelLayout.endReason, reason.rawValue)
    }
    release_store32(header + ChannelLayout.endWord, 1)
  }

  /// Instance: whether the channel is to be used no more.
  public var isAsked: Bool { acquire_load32(header + ChannelLayout.endWord) != 0 }
  /// Instance: why the host has closed the channel; ``EndReason/none`` where it has not, or says what nobody knows.
  public var reason: EndReason {
    EndReason(rawValue: relaxed_load32(header + ChannelLayout.endReason)) ?? .none
  }
}
