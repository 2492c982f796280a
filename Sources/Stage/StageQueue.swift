import Channel
import Memory

/// The packets of one queue that a stage has, and those on their way back. One thread.
@usableFromInline
struct StageQueue: ~Copyable {
  /// Packets of a burst that are taken in one turn.
  @usableFromInline static var burst: Int { @inlinable get { 64 } }

  // Invariant: `maximumPackets` initialised records until deinit.
  @usableFromInline let packets: UnsafeMutablePointer<StoredPacket>
  // Invariant: `maximumPackets` numbers, of which the first `spareCount` are of packets that are spares.
  @usableFromInline let spares: UnsafeMutablePointer<UInt16>
  @usableFromInline var spareCount = 0
  /// Packets that go back. Nothing is taken while it has any: so it has room for all that the stage has, and a burst more.
  @usableFromInline var leaving: Burst

  init() {
    let count = StagedPacket.maximumPackets
    packets = .allocate(capacity: count)
    packets.initialize(repeating: StoredPacket(), count: count)
    spares = .allocate(capacity: count)
    spares.initialize(repeating: 0, count: count)
    leaving = Burst(capacity: (count + Self.burst) * StagedPacket.slots)
  }

  deinit {
    packets.deallocate()
    spares.deallocate()
  }

  @inlinable
  mutating func give(_ packet: StagedPacket, _ way: StagedPacket.Way) {
    var packet = packet
    packet.way = way
    packet.append(to: &leaving)
  }

  /// Keeps a packet, whose number must be below the most that there are and not be kept already.
  @inlinable
  mutating func keep(_ packet: StagedPacket, _ kind: StoredPacket.Kind, arrival: UInt64 = 0) {
    let number = Int(packet.number)
    packets[number].packet = packet
    packets[number].kind = kind
    packets[number].arrival = arrival
    if kind == .spare {
      spares[spareCount] = packet.number
      spareCount &+= 1
    }
  }

  /// A spare, which is the caller's from now on.
  @inlinable
  mutating func takeSpare() -> StagedPacket? {
    if spareCount == 0 { return nil }
    spareCount &-= 1
    let number = Int(spares[spareCount])
    packets[number].kind = .absent
    return packets[number].packet
  }

  @inlinable
  func isHeld(_ number: UInt16) -> Bool {
    number < UInt16(StagedPacket.maximumPackets) && packets[Int(number)].kind == .held
  }

  @inlinable
  mutating func takeHeld(_ number: UInt16) -> StagedPacket? {
    guard isHeld(number) else { return nil }
    packets[Int(number)].kind = .absent
    return packets[Int(number)].packet
  }
}

/// What is known of a number.
@usableFromInline
struct StoredPacket: BitwiseCopyable {
  @usableFromInline
  enum Kind: UInt8, BitwiseCopyable {
    /// The host's.
    case absent
    case held
    case spare
  }

  @usableFromInline
  var packet = StagedPacket(
    number: 0, way: .none, position: 0, byteCount: 0, roomBefore: 0, roomBehind: 0)
  /// How many packets of the stage had been held before.
  @usableFromInline var arrival: UInt64 = 0
  @usableFromInline var kind = Kind.absent

  @usableFromInline init() {}
}
