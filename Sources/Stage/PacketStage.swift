import Channel

/// Sees each packet between the driver and the instances, and says what becomes of it. In a process of its own, on one
/// thread: the runtime calls it and it calls nobody. A program gets it with one line (``InstalledStage``).
///
/// Time is what the runtime says it is (``StageOutput/now``): a stage that asks no other clock does the same each time with
/// the same packets (``StageBench``).
public protocol PacketStage: ~Copyable, SendableMetatype {
  /// Reads the configuration and makes everything that it will need. The process is confined already: there are no files,
  /// and nothing is mapped once packets come.
  /// - Throws: what is wrong in the configuration, with its line and what to write instead.
  init(_ configuration: String, _ interface: StageInterface) throws(StageError)

  /// Names of what the stage counts in ``StageOutput/counters``, in that order: letters in lower case, digits and
  /// underscores, ``StageCounters/capacity`` at most. Asked once, after the stage was made.
  var counterNames: [String] { get }

  /// A packet has come.
  /// - Parameters:
  ///   - packet: may be changed in place.
  ///   - output: makes further packets, and releases those that were held.
  mutating func process(_ packet: inout StagePacket, _ output: inout StageOutput) -> Verdict

  /// When ``service(_:)`` is due, on the clock of ``StageOutput/now``; the largest number for never. Asked after each burst.
  var nextDeadline: UInt64 { get }

  /// ``nextDeadline`` has come.
  mutating func service(_ output: inout StageOutput)
}

/// What holds for stages that need no timer and count nothing of their own.
extension PacketStage where Self: ~Copyable {
  @inlinable public var counterNames: [String] { [] }
  @inlinable public var nextDeadline: UInt64 { .max }
  @inlinable public mutating func service(_ output: inout StageOutput) {}
}

/// What becomes of a packet.
@frozen
public enum Verdict: Sendable {
  /// It goes on.
  case pass
  /// It goes back the other way: to the wire what has come from there, to the instances what one of them has sent.
  case turn
  /// It goes nowhere.
  case drop
  /// The stage has noted its ``StagePacket/token`` and says later: ``StageOutput/release(_:_:)``. There are
  /// `StagedPacket.maximumPackets` for each queue, which the driver goes without meanwhile: a stage sets a limit of its own.
  case hold
}

/// The interface that a stage stands before.
public struct StageInterface: Sendable {
  /// The stage's name in its policy.
  public var name: String
  /// Queue pairs: packets of one flow come over one of them, in their order.
  public var queues: Int
  /// The NIC's address: 48 bits, the first byte on the wire highest, as in `PacketHeader.sourceStation`.
  public var station: UInt64
  /// Bytes of the largest packet without its Ethernet header.
  public var mtu: Int

  /// An interface, for tests.
  public init(
    name: String = "test", queues: Int = 1, station: UInt64 = 0x0200_0000_0001, mtu: Int = 1500
  ) {
    self.name = name
    self.queues = queues
    self.station = station
    self.mtu = mtu
  }
}
