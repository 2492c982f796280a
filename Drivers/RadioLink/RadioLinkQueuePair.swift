import Driver
import Memory
import PCI
import Rings

/// The rings of a RadioLink function (RadioLink.md, sections 3 and 5). One thread.
///
/// The device may write anything to the rings' memory at any time. What decides is the private record of what was
/// posted; of the device's words only the indexes and the completions are read, each once, and checked before use.
public struct RadioLinkQueuePair: NetworkQueuePair, ~Copyable {
  let registers: RegisterWindow
  let rings: RadioLinkRings
  let arena: DMARange
  let payloadBytes: Int
  let maximumPacketBytes: Int

  /// What was posted at each place of the receive ring; the buffers from `completed` to `posted` are the device's.
  let buffers: PostedBuffers
  var posted: UInt32 = 0
  var completed: UInt32 = 0
  /// What was posted last when the device was told.
  var announced: UInt32 = 0

  /// The tag and the end of a packet at each place of the transmit ring.
  let outgoing: PostedBuffers
  var sent: UInt32 = 0
  var done: UInt32 = 0
  /// Tags of packets that were refused, until they are completed.
  var refusedPackets = Burst(capacity: 64)

  var reassembly: Reassembly
  /// The PDU whose completions are being read.
  var arriving = PieceList()
  var arrivingSequence: UInt16 = 0
  var violation: RadioLinkViolation?
  var counts = QueueStatistics()

  init(
    registers: RegisterWindow, rings: RadioLinkRings, arena: DMARange, limits: RadioLinkLimits,
    delivery: PacketDelivery
  ) {
    self.registers = registers
    self.rings = rings
    self.arena = arena
    payloadBytes = limits.payloadBytes
    maximumPacketBytes = limits.mtu + 14
    buffers = PostedBuffers(count: rings.receiveSize)
    outgoing = PostedBuffers(count: rings.transmitSize)
    // A full ring, and of the rest of the window four pieces of each PDU.
    reassembly = Reassembly(
      delivery: delivery, window: limits.window, maximumPacketBytes: limits.mtu + 14,
      capacity: rings.receiveSize + 4 * limits.window, arena: arena)
  }

  public var statistics: QueueStatistics {
    var all = counts
    let dropped = reassembly.statistics
    all.receiveErrors &+= dropped.duplicates &+ dropped.outsideWindow
    all.receiveErrors &+= dropped.malformedPDUs &+ dropped.brokenPackets
    return all
  }

  /// What waits for other PDUs, and what was wrong with what came.
  public var reassemblyStatistics: ReassemblyStatistics { reassembly.statistics }

  // MARK: Receive buffers

  /// Buffers with the device.
  var outstanding: Int { Int(posted &- completed) }

  /// What the ring and the store have room for: every posted buffer has a place in the store.
  public var receiveRoom: Int {
    let inStore = reassembly.store.usedCount
    let waiting = outstanding &+ reassembly.refused.count
    return max(
      0,
      min(rings.receiveSize &- waiting, reassembly.store.capacity &- outstanding &- inStore))
  }

  /// A buffer that is too small for a PDU stays in the burst, and all behind it.
  public mutating func postReceive(_ burst: inout Burst) throws(DriverError) {
    if violation != nil { return }
    let count = min(burst.count, receiveRoom)
    var taken = 0
    while taken < count && Int(burst[taken].length) >= payloadBytes {
      post(burst[taken])
      taken &+= 1
    }
    burst.removeFirst(taken)
    announceBuffers()
  }

  /// Buffers of pieces that nobody gets go back to the device.
  mutating func postRefused() {
    while !reassembly.refused.isEmpty && outstanding < rings.receiveSize {
      post(reassembly.store.takeFirst(&reassembly.refused).buffer)
    }
  }

  private mutating func post(_ slot: Descriptor) {
    let place = Int(posted & rings.receiveMask)
    buffers[place] = slot
    let at = place &* RadioLinkLayout.descriptorBytes
    rings.receive.store64(arena.iova &+ slot.position, at: at)
    rings.receive.store64(UInt64(slot.length) | UInt64(place) &<< 32, at: at &+ 8)
    posted &+= 1
  }

  mutating func announceBuffers() {
    if announced == posted { return }
    announced = posted
    rings.indexes.publish()
    registers.write32(posted, at: RadioLinkRegister.receiveTail)
    counts.doorbells &+= 1
  }

  // MARK: Interrupts (section 6)

  public mutating func armInterrupts(transmit: Bool) -> Bool {
    let arm = RadioLinkValue.armReceive | (transmit ? RadioLinkValue.armTransmit : 0)
    registers.write32(arm, at: RadioLinkRegister.arm)
    rings.indexes.synchronize()
    let receiveIsQuiet =
      rings.indexes.loadAcquiring32(at: RadioLinkLayout.completedIndex) == completed
      && reassembly.ready.isEmpty
    let transmitIsQuiet =
      refusedPackets.isEmpty
      && (!transmit || rings.indexes.loadAcquiring32(at: RadioLinkLayout.sentIndex) == done)
    return receiveIsQuiet && transmitIsQuiet
  }

  public mutating func disarmInterrupts() { registers.write32(0, at: RadioLinkRegister.arm) }

  // MARK: After the driver's stop

  public mutating func takeBack(segments: inout Burst, packets: inout Burst) {
    arriving = PieceList()
    reassembly.clear()
    while segments.room > 0, let piece = reassembly.store.takeAny() {
      segments.append(piece.buffer)
    }
    while segments.room > 0 && completed != posted {
      segments.append(buffers[Int(completed & rings.receiveMask)])
      completed &+= 1
    }
    while packets.room > 0 && !refusedPackets.isEmpty {
      packets.append(refusedPackets[refusedPackets.count &- 1])
      refusedPackets.truncate(to: refusedPackets.count &- 1)
    }
    takeBackPackets(into: &packets)
  }

  /// What the device has broken, for good: later calls throw the same.
  mutating func broken(_ what: RadioLinkViolation) -> DriverError {
    violation = what
    return what.error
  }
}

/// A private record of what lies at each place of a ring.
struct PostedBuffers: ~Copyable, @unchecked Sendable {
  // Invariant: `slots` has `count` initialised elements.
  private let slots: UnsafeMutablePointer<Descriptor>
  private let count: Int

  init(count: Int) {
    slots = .allocate(capacity: count)
    slots.initialize(repeating: Descriptor(segment: 0), count: count)
    self.count = count
  }

  deinit { slots.deallocate() }

  subscript(place: Int) -> Descriptor {
    get {
      precondition(place >= 0 && place < count)
      return slots[place]
    }
    nonmutating set {
      precondition(place >= 0 && place < count)
      slots[place] = newValue
    }
  }
}
