import Memory

/// The order in which packets are handed up.
public enum PacketDelivery: Sendable, Equatable {
  /// That of the link layer: a packet waits for all PDUs before its own.
  case linkOrder
  /// That of receipt: a packet waits for its own bytes only. Flows that a loss has not hit do not wait for its repetition.
  case early
  /// That of receipt, and in each flow that of the sender as far as it is known: a packet also waits for those of its own
  /// flow that stand before it on the link and have begun to arrive. See RadioLink.md, section 8.
  case earlyByFlow
}

/// What became of the device's PDUs. Counters only ever grow; what is held now may shrink.
public struct ReassemblyStatistics: Sendable, Equatable {
  /// Bytes of pieces that wait for others, and the most after any PDU.
  public var heldBytes = 0
  public var peakHeldBytes = 0
  /// Segments that hold them, and the most after any PDU.
  public var heldSegments = 0
  public var peakHeldSegments = 0
  /// Packets handed up at the arrival of a PDU while one before it was missing.
  public var earlyPackets: UInt64 = 0
  /// PDUs that had come before.
  public var duplicates: UInt64 = 0
  /// PDUs outside the window.
  public var outsideWindow: UInt64 = 0
  /// PDUs whose pieces contradict each other.
  public var malformedPDUs: UInt64 = 0
  /// Packets dropped because their pieces do not make one: a gap or overlap, too long, too short, too many.
  public var brokenPackets: UInt64 = 0

  public init() {}
}

/// Puts packets together from the pieces of PDUs that arrive in any order (RadioLink.md, section 4).
///
/// Nothing that the device says is believed: a PDU counts once and only inside the window, a packet only where its
/// pieces follow each other without gap or overlap. What is kept is bounded by the store and the window. One thread.
struct Reassembly: ~Copyable, @unchecked Sendable {
  /// What is known of one PDU.
  struct Slot: BitwiseCopyable {
    var isReceived = false
    /// A piece that continues a packet of the PDU before; -1 for none. Early delivery.
    var head: Int32 = -1
    /// A piece that goes on in the next PDU; the same as `head` where it does both. Early delivery.
    var tail: Int32 = -1
    /// The entry of the packet that begins in `tail`; -1 for none. Early delivery by flow.
    var entry: Int32 = -1
    /// All pieces. Delivery in link order.
    var pieces = PieceList()
  }

  /// Pieces of a packet at most: slots of a burst for one packet, without metadata.
  static var maximumPieces: Int { Descriptor.maximumSlots - 1 }
  /// PDUs before the lower edge that a packet which is not whole may lie in.
  static var history: UInt64 { UInt64(maximumPieces) + 1 }

  let delivery: PacketDelivery
  let window: UInt64
  let maximumPacketBytes: Int
  let arena: DMARange
  var store: PieceStore
  var flows: FlowOrder
  // Invariant: `slots` has `slotMask + 1` initialised elements, more than window + history: no two PDUs that matter at
  // the same time share one.
  let slots: UnsafeMutablePointer<Slot>
  let slotMask: UInt64
  /// The first PDU that has not come, counted without wrapping. Its remainder is the sequence number.
  private(set) var lowerEdge = RadioLinkSequence.count
  /// Whole packets, to be handed up in this order.
  var ready = PieceList()
  /// Buffers that go back to the device.
  var refused = PieceList()
  /// In link order: the beginning of the packet that the next PDU goes on with.
  var current = PieceList()
  var statistics = ReassemblyStatistics()
  /// Whether a PDU before the one that is looked at is missing.
  private var isEarly = false

  /// - Parameter capacity: pieces that the store holds.
  init(
    delivery: PacketDelivery, window: Int, maximumPacketBytes: Int, capacity: Int, arena: DMARange
  ) {
    self.delivery = delivery
    self.window = UInt64(window)
    self.maximumPacketBytes = maximumPacketBytes
    self.arena = arena
    store = PieceStore(capacity: capacity)
    // Powers of two: the window is one, and the history is 64.
    let count = 2 * max(window, Int(Self.history))
    slots = .allocate(capacity: count)
    slots.initialize(repeating: Slot(), count: count)
    slotMask = UInt64(count - 1)
    // Every packet that waits has a piece, or began in a slot.
    let ordersFlows = delivery == .earlyByFlow
    flows = FlowOrder(packets: ordersFlows ? capacity + count : 1, flows: ordersFlows ? count : 1)
  }

  deinit { slots.deallocate() }

  /// Takes a PDU; its pieces are in the store.
  mutating func accept(sequence: UInt16, _ pieces: PieceList) {
    var pieces = pieces
    hold(pieces)
    let ahead = (UInt64(sequence) &- lowerEdge) & RadioLinkSequence.mask
    let number = lowerEdge &+ ahead
    let slot = slots + Int(number & slotMask)
    if ahead >= window {
      statistics.outsideWindow &+= 1
      refuse(&pieces)
    } else if slot.pointee.isReceived {
      statistics.duplicates &+= 1
      refuse(&pieces)
    } else {
      slot.pointee.isReceived = true
      if !store.isWellFormed(pieces) {
        statistics.malformedPDUs &+= 1
        refuse(&pieces)
      }
      isEarly = ahead > 0
      if delivery == .linkOrder {
        slot.pointee.pieces = pieces
      } else {
        deliverEarly(number, &pieces)
      }
      advance()
    }
    statistics.peakHeldBytes = max(statistics.peakHeldBytes, statistics.heldBytes)
    statistics.peakHeldSegments = max(statistics.peakHeldSegments, statistics.heldSegments)
  }

  /// Moves the lower edge to the first PDU that is missing.
  private mutating func advance() {
    while slots[Int(lowerEdge & slotMask)].isReceived {
      if delivery == .linkOrder { deliverInOrder(lowerEdge) }
      lowerEdge &+= 1
      forget(lowerEdge &- Self.history &- 1)
    }
  }

  /// No packet reaches so far back. Should anything still be there, it goes back to the device.
  private mutating func forget(_ number: UInt64) {
    let slot = slots + Int(number & slotMask)
    let (head, tail, entry) = (slot.pointee.head, slot.pointee.tail, slot.pointee.entry)
    slot.pointee = Slot()
    var pieces = PieceList()
    if head >= 0 { store.relink(head, to: &pieces) }
    if tail >= 0 && tail != head { store.relink(tail, to: &pieces) }
    if !pieces.isEmpty { drop(&pieces, entry: entry) }
  }

  // MARK: In link order

  private mutating func deliverInOrder(_ number: UInt64) {
    var pieces = slots[Int(number & slotMask)].pieces
    slots[Int(number & slotMask)].pieces = PieceList()
    var packet = current
    while !pieces.isEmpty {
      let index = store.unlinkFirst(&pieces)
      let flags = store[index].flags
      // A packet was begun and does not go on; or, below, one goes on that was not begun.
      if flags.contains(.first) && !packet.isEmpty { drop(&packet) }
      store.relink(index, to: &packet)
      if packet.count == 1 && !flags.contains(.first) || packet.count > Self.maximumPieces {
        drop(&packet)
      } else if flags.contains(.last) {
        finish(&packet, from: number)
      }
    }
    current = packet
  }

  // MARK: What both ways share

  /// A whole packet goes up, if it is one, or waits for those before it in its flow.
  /// - Parameters:
  ///   - number: the PDU in which it begins.
  ///   - entry: its place in its flow, if it has one.
  mutating func finish(_ packet: inout PieceList, from number: UInt64, entry: Int32 = -1) {
    guard let byteCount = store.packetBytes(packet), byteCount >= 14,
      byteCount <= maximumPacketBytes, packet.count <= Self.maximumPieces
    else {
      drop(&packet, entry: entry)
      return
    }
    if entry >= 0 {
      release(flows.settle(entry, packet))
    } else if delivery != .earlyByFlow {
      handUp(packet)
    } else {
      let queue = flows.wait(Self.flow(of: store[packet.first], in: arena), packet, in: number)
      if queue >= 0 { release(queue) } else { handUp(packet) }
    }
    packet = PieceList()
  }

  /// Pieces that make no packet.
  mutating func drop(_ pieces: inout PieceList, entry: Int32 = -1) {
    statistics.brokenPackets &+= 1
    refuse(&pieces)
    if entry >= 0 { release(flows.settle(entry, PieceList())) }
  }

  /// What waits for nothing more in a flow's queue goes up.
  private mutating func release(_ queue: Int32) {
    while let packet = flows.takeNext(queue) { handUp(packet) }
  }

  private mutating func handUp(_ packet: PieceList) {
    if packet.isEmpty { return }
    var packet = packet
    statistics.heldBytes &-= packet.bytes
    statistics.heldSegments &-= packet.count
    if isEarly { statistics.earlyPackets &+= 1 }
    store.move(&packet, to: &ready)
  }

  /// The flow of the packet that begins with a piece.
  static func flow(of piece: Piece, in arena: DMARange) -> FlowKey {
    let start = piece.buffer.position
    // Invariant: the piece lies in a buffer that was posted, inside the arena; its length was checked against it.
    precondition(start &+ UInt64(piece.length) <= UInt64(arena.byteCount))
    return FlowKey(
      UnsafeRawBufferPointer(start: arena.address + Int(start), count: Int(piece.length)))
  }

  private mutating func hold(_ pieces: PieceList) {
    statistics.heldBytes &+= pieces.bytes
    statistics.heldSegments &+= pieces.count
  }

  private mutating func refuse(_ pieces: inout PieceList) {
    statistics.heldBytes &-= pieces.bytes
    statistics.heldSegments &-= pieces.count
    store.move(&pieces, to: &refused)
  }

  /// Everything is forgotten; the pieces are the caller's to take out of the store.
  mutating func clear() {
    for index in 0...Int(slotMask) { slots[index] = Slot() }
    ready = PieceList()
    refused = PieceList()
    current = PieceList()
    flows.clear()
    statistics.heldBytes = 0
    statistics.heldSegments = 0
  }
}
