/// A part of the data path that runs by itself, against memory in place of a device: what is counted in instructions
/// and timed beside the C control. One thread.
public protocol PathLoop: ~Copyable {
  /// Runs so many bursts of ``burstSize``.
  /// - Returns: packets, or segments, that went all the way.
  mutating func run(bursts: Int) throws -> Int
}

extension PathLoop where Self: ~Copyable {
  /// Packets of a burst.
  public static var burstSize: Int { 32 }
}

/// The loops by name.
public enum PathLoopName: String, CaseIterable, Sendable {
  case receive = "receive.split"
  case receivePacked = "receive.packed"
  case transmit = "transmit.split"
  case transmitPacked = "transmit.packed"
  case hostReceive = "host.receive.split"
  case hostReceivePacked = "host.receive.packed"
  case hostReceiveTimed = "host.receive.timed"
  case hostReceiveFiltered = "host.receive.filtered"
  case hostReceivePairs = "host.receive.pairs4"
  case hostReceiveIdlePairs = "host.receive.idle4"
  case hostTransmit = "host.transmit.split"
  case hostTransmitPacked = "host.transmit.packed"
  case hostForward = "host.forward.split"
  case hostForwardPacked = "host.forward.packed"
  case hostTransmitSingle = "host.transmit.single"
  case hostTransmitAggregate8 = "host.transmit.aggregate8"
  case hostTransmitAggregate32 = "host.transmit.aggregate32"
  case sharedReceive = "shared.receive.1"
  case sharedReceiveTimed = "shared.receive.timed"
  case sharedReceive64 = "shared.receive.64"
  case sharedReceiveFiltered = "shared.receive.filtered"
  case sharedReceiveRules = "shared.receive.rules8"
  case sharedReceiveEach = "shared.receive.each"
  case sharedReceiveEachRules = "shared.receive.each.rules8"
  case sharedReceiveStaged = "shared.receive.staged"
  case sharedReceiveAll64 = "shared.receive.all64"
  case sharedTransmit = "shared.transmit.1"
  case sharedTransmit64 = "shared.transmit.64"
  case sharedTransmitAll64 = "shared.transmit.all64"
  case channel = "channel"
  case commands = "commands"
  case pool1 = "pool.bulk1"
  case pool32 = "pool.bulk32"
  case send = "zbuf.write"
  case receiveInC = "receive.split.control"
  case transmitInC = "transmit.split.control"
  case channelInC = "channel.control"
  case pool1InC = "pool.bulk1.control"
  case pool32InC = "pool.bulk32.control"

  /// The C loop that does the same work, where there is one.
  public var control: PathLoopName? { PathLoopName(rawValue: rawValue + ".control") }
  /// Whether it is one of those in C.
  public var isControl: Bool { rawValue.hasSuffix(".control") }

  /// Makes the loop and hands it to a visitor, specialised for it.
  /// - Throws: ``UnsupportedLoop`` where the driver does not do what it asks for.
  public func visit<V: PathLoopVisitor>(_ visitor: V) throws -> V.Result {
    switch self {
    case .receive: try visitor.visit(ReceiveLoop(.split))
    case .receivePacked: try visitor.visit(ReceiveLoop(.packed))
    case .transmit: try visitor.visit(TransmitLoop(.split))
    case .transmitPacked: try visitor.visit(TransmitLoop(.packed))
    case .hostReceive: try visitor.visit(HostReceiveLoop(.split))
    case .hostReceivePacked: try visitor.visit(HostReceiveLoop(.packed))
    case .hostReceiveTimed: try visitor.visit(HostReceiveLoop(.split, isTimed: true))
    case .hostReceiveFiltered: try visitor.visit(HostReceiveLoop(.split, isFiltered: true))
    case .hostReceivePairs: try visitor.visit(HostPairsLoop(.split, pairs: 4, busy: 4))
    case .hostReceiveIdlePairs: try visitor.visit(HostPairsLoop(.split, pairs: 4, busy: 1))
    case .hostTransmit: try visitor.visit(HostTransmitLoop(.split))
    case .hostTransmitPacked: try visitor.visit(HostTransmitLoop(.packed))
    case .hostForward: try visitor.visit(HostForwardLoop(.split))
    case .hostForwardPacked: try visitor.visit(HostForwardLoop(.packed))
    case .hostTransmitSingle: try visitor.visit(HostAggregateLoop(packets: 1))
    case .hostTransmitAggregate8: try visitor.visit(HostAggregateLoop(packets: 8))
    case .hostTransmitAggregate32: try visitor.visit(HostAggregateLoop(packets: 32))
    case .sharedReceive: try visitor.visit(SharedReceiveLoop(attached: 1, active: 1))
    case .sharedReceiveTimed:
      try visitor.visit(SharedReceiveLoop(attached: 1, active: 1, isTimed: true))
    case .sharedReceiveFiltered:
      try visitor.visit(SharedReceiveLoop(attached: 1, active: 1, isFiltered: true))
    case .sharedReceiveRules:
      try visitor.visit(SharedReceiveLoop(attached: 1, active: 1, rules: 8))
    case .sharedReceiveEach:
      try visitor.visit(SharedReceiveLoop(attached: 1, active: 1, isPlain: false))
    case .sharedReceiveEachRules:
      try visitor.visit(SharedReceiveLoop(attached: 1, active: 1, rules: 8, isPlain: false))
    case .sharedReceiveStaged:
      try visitor.visit(SharedReceiveLoop(attached: 1, active: 1, isStaged: true))
    case .sharedReceive64: try visitor.visit(SharedReceiveLoop(attached: 64, active: 1))
    case .sharedReceiveAll64: try visitor.visit(SharedReceiveLoop(attached: 64, active: 64))
    case .sharedTransmit: try visitor.visit(SharedTransmitLoop(attached: 1, active: 1))
    case .sharedTransmit64: try visitor.visit(SharedTransmitLoop(attached: 64, active: 1))
    case .sharedTransmitAll64: try visitor.visit(SharedTransmitLoop(attached: 64, active: 64))
    case .channel: try visitor.visit(ChannelLoop())
    case .commands: try visitor.visit(CommandLoop())
    case .pool1: try visitor.visit(PoolLoop(bulk: 1))
    case .pool32: try visitor.visit(PoolLoop(bulk: 32))
    case .send: try visitor.visit(SendLoop(byteCount: 16 << 10))
    case .receiveInC: try visitor.visit(CReceiveLoop())
    case .transmitInC: try visitor.visit(CTransmitLoop())
    case .channelInC: try visitor.visit(CChannelLoop())
    case .pool1InC: try visitor.visit(CPoolLoop(bulk: 1))
    case .pool32InC: try visitor.visit(CPoolLoop(bulk: 32))
    }
  }
}

/// What is done with a loop.
public protocol PathLoopVisitor {
  associatedtype Result
  func visit<L: PathLoop & ~Copyable>(_ loop: consuming L) throws -> Result
}

/// The driver has not negotiated what a loop is about.
public struct UnsupportedLoop: Error, CustomStringConvertible {
  public var description: String
}
