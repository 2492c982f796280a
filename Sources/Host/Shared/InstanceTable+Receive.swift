import Memory
import Steering

/// How busy the interface is, and how much of the host's work each instance may have while there is more than can be done.
/// One thread.
struct ReceiveLoad {
  /// Full bursts from the device, one after the other.
  private var fullBursts = 0
  /// Work that is wanted in this burst, by whom, and their weights.
  private var work = 0
  private var wanted: UInt64 = 0
  private var weights = 0
  /// What a weight of 1 gets in each burst; 0 while there is time for all.
  private(set) var share = 0

  /// The interface is overloaded from so many full bursts on.
  private static let patience = 4

  var isOverloaded: Bool { share > 0 }

  /// A burst has come.
  mutating func begin(isFull: Bool) {
    fullBursts = isFull ? fullBursts &+ 1 : 0
    // Who is alone takes nothing from anybody. A quarter more than an equal share keeps those that are equal from losing
    // by chance.
    let isContested = wanted & (wanted &- 1) != 0
    share = fullBursts > Self.patience && isContested ? max(1, work &* 5 / (4 &* weights)) : 0
    work = 0
    wanted = 0
    weights = 0
  }

  /// An instance would get a packet that costs so much.
  mutating func note(_ index: Int, weight: Int, cost: Int) {
    work &+= cost
    if wanted & bit(index) == 0 {
      wanted |= bit(index)
      weights &+= weight
    }
  }
}

/// The host's work for a packet, in the unit of time that a byte takes.
enum PacketCost {
  static let packet = 256
  static let piece = 64
  /// A wake, and looking for work in vain afterwards.
  static let wake = 16_384

  @inline(__always)
  static func of(pieces: Int, bytes: Int) -> Int { packet &+ pieces &* piece &+ bytes }
}

extension InstanceTable {
  /// Copies received packets to whom they are for; the burst's segments are the host's again afterwards.
  @usableFromInline
  mutating func deliver(_ received: borrowing Burst) {
    load.begin(isFull: received.count >= Descriptor.maximumSlots)
    if load.isOverloaded { giveCredit() }
    let slots = received.start
    var first = 0
    while first < received.count {
      guard let last = received.endOfPacket(from: first) else { break }
      deliver(slots + first, last &- first &+ 1)
      first = last &+ 1
    }
    pushDelivered()
  }

  private mutating func deliver(_ slots: UnsafePointer<Descriptor>, _ count: Int) {
    let isDescribed = slots.pointee.flags.contains(.offload)
    if isDescribed && count == 1 { return }
    let piece = slots[isDescribed ? 1 : 0]
    let packet = PacketHeader(
      frame: window + Int(piece.position), byteCount: Int(piece.length))
    var reason = DropReason.unclaimed
    if packet.kind == .tagged { counts[.tagged] &+= 1 }
    var set = rules.recipients(of: packet, &reason) & open
    if set == 0 {
      switch reason {
      case .unclaimed: counts[.droppedUnclaimed] &+= 1
      case .foreign: counts[.droppedForeign] &+= 1
      case .malformed: counts[.droppedMalformed] &+= 1
      }
      return
    }
    var bytes = 0
    for position in 0..<count where !(slots + position).isOffload {
      bytes &+= Int(slots[position].length)
    }
    while set != 0 {
      deliver(
        slots, count, to: set.removeFirstInstance(), pieces: isDescribed ? count &- 1 : count,
        bytes: bytes)
    }
  }

  private mutating func deliver(
    _ slots: UnsafePointer<Descriptor>, _ count: Int, to index: Int, pieces: Int, bytes: Int
  ) {
    let port = port(index)
    let cost = PacketCost.of(pieces: pieces, bytes: bytes)
    load.note(index, weight: port.pointee.weight, cost: cost)
    note(index, cost: cost)
    if spent & bit(index) != 0 {
      port.pointee.counts[.droppedBudget] &+= 1
      return
    }
    if load.isOverloaded {
      if port.pointee.receiveCredit <= 0 {
        port.pointee.counts[.droppedBudget] &+= 1
        return
      }
      port.pointee.receiveCredit &-= cost
    }
    if touched & bit(index) == 0 {
      touched |= bit(index)
      port.pointee.receiveRoom = port.pointee.channel.receive.room()
      noteWork(index)
    }
    if port.pointee.receiveRoom < count {
      port.pointee.counts[.droppedRingFull] &+= 1
      return
    }
    if port.pointee.ledger.hostCount < pieces
      || port.pointee.ledger.instanceCount &+ pieces > port.pointee.segmentLimit
    {
      port.pointee.counts[.droppedNoSegment] &+= 1
      return
    }
    if port.pointee.delivering.room < count { port.pointee.pushDelivered() }
    port.pointee.receiveRoom &-= count
    port.pointee.copy(slots, count, from: window)
  }

  /// Receive rings: there is room for all of it, which has been looked at before.
  private mutating func pushDelivered() {
    var set = touched & open
    while set != 0 {
      port(set.removeFirstInstance()).pointee.pushDelivered()
    }
  }

  /// While there is more than can be done, each gets its share in each burst, and keeps that of a few.
  private mutating func giveCredit() {
    var set = open
    while set != 0 {
      let port = port(set.removeFirstInstance())
      let share = load.share &* port.pointee.weight
      port.pointee.receiveCredit = min(port.pointee.receiveCredit &+ share, 4 &* share)
    }
  }
}
