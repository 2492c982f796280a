import Channel
import Memory

/// One instance as one queue thread knows it: its end of the channel, who owns which of its receive segments, what it may
/// send, and what it has used of its share. One thread.
///
/// Positions that the instance uses count from the start of its own arena; the host's from the start of the window.
@usableFromInline
struct InstancePort: ~Copyable {
  /// 0 to 63.
  let index: Int
  /// Who it is: its number among all that there have been, and its slot in the lowest 8 bits.
  let id: UInt32
  var channel: HostEnd
  /// The word by which the channel is closed.
  let end: ChannelEnd
  /// Its receive segments on this queue: they are the host's, the instance's, or being sent in place.
  var ledger: SegmentLedger
  /// The first byte of its arena, in this process.
  let arena: UnsafeMutableRawPointer
  /// Where its arena begins in the window, in bytes.
  let base: UInt64
  /// What it may send from, besides segments that it has received.
  var transmitPart: Range<UInt64>
  /// What applications have registered for it to send from.
  var registered: RegisteredPart
  /// Its share of the host's work, beside those of the others.
  let weight: Int
  /// How many receive segments it may hold on this queue.
  let segmentLimit: Int
  let counts = CounterBlock<InstanceCounter>()
  /// Of the thread's time, whether or not others want it.
  var time: TimeBudget
  /// What it rings on this queue; nil where nobody sleeps.
  let doorbell: HostDoorbell?
  /// What the work for it costs since time was last charged.
  var work = 0

  /// What the next host needs to go on; the four bursts by which something is handed over lie in it.
  private let record: PathRecord
  /// Packets that a host before this one has taken.
  private(set) var orphans: OrphanedTags

  /// Packets that are on their way to its receive ring.
  var delivering: Burst
  /// Slots that its receive ring has room for, as of when this burst's first packet for it came.
  var receiveRoom = 0
  /// What it may still be given while the interface is overloaded.
  var receiveCredit = Int.max / 2
  /// Packets of its transmit ring; those before `nextToSend` are done with.
  var sending: Burst
  var nextToSend = 0
  /// What it may still send in this round.
  var deficit = 0
  /// Packets that the device has, counted apart before and after some of its memory was last taken from it.
  var inFlight = (0, 0)
  var epoch: UInt8 = 0
  /// Tags that are its again and wait for room in its completion ring. Bounded: no more packets are taken from an instance
  /// than have room here.
  var completed: Burst
  private var aggregates = AggregateTags()
  private var returned: Burst
  /// Turns without work, one after the other.
  var idleTurns = 0
  var isClosed = false

  /// Packets of one instance that are with the device or wait to be handed back.
  static let maximumInFlight = 256

  /// Whether it has as many packets under way as it may have while others send too.
  var isHeldBack: Bool { inFlightCount &+ completed.count >= Self.inFlightBesideOthers }
  /// Packets under way of one instance while others have some to send too.
  static let inFlightBesideOthers = 64

  var inFlightCount: Int { inFlight.0 &+ inFlight.1 }

  init(
    index: Int, id: UInt32 = 0, channel: consuming HostEnd, end: ChannelEnd,
    ledger: consuming SegmentLedger,
    arena: UnsafeMutableRawPointer, base: UInt64, transmitPart: Range<UInt64>,
    registeredPart: Range<UInt64>, weight: Int, segmentLimit: Int,
    time: TimeBudget = TimeBudget(percent: 100), doorbell: HostDoorbell? = nil,
    record: consuming PathRecord = PathRecord()
  ) {
    self.index = index
    self.id = id
    self.channel = channel
    self.end = end
    self.ledger = ledger
    self.arena = arena
    self.base = base
    self.transmitPart = transmitPart
    registered = RegisteredPart(registeredPart)
    self.weight = weight
    self.segmentLimit = segmentLimit
    delivering = record.burst(.receive, capacity: 128)
    sending = record.burst(.transmit, capacity: 128)
    completed = record.burst(.completion, capacity: Self.maximumInFlight)
    returned = record.burst(.free, capacity: 64)
    orphans = OrphanedTags(record.outstandingTags())
    self.record = record
    self.time = time
    self.doorbell = doorbell
  }

  // MARK: From the instance

  /// Free ring: the instance gives receive segments back.
  /// - Returns: whether there were any.
  mutating func takeReturnedSegments(_ offence: inout EndReason) -> Bool {
    do throws(ChannelError) {
      try channel.free.take(into: &returned)
    } catch {
      offence = Self.reason(consume error)
      return false
    }
    if returned.isEmpty { return false }
    record.begin(.free, count: returned.count, index: channel.free.index)
    do throws(LedgerError) {
      try ledger.takeBack(&returned)
    } catch {
      offence = .notItsSegment
      returned.removeAll()
    }
    record.commit(.free, index: channel.free.index)
    channel.free.publish()
    record.end()
    return true
  }

  /// Transmit ring: takes the next packets where those before are done with.
  /// - Returns: whether there are packets to send.
  mutating func takePackets(_ offence: inout EndReason) -> Bool {
    if nextToSend < sending.count { return true }
    sending.removeAll()
    nextToSend = 0
    do throws(ChannelError) {
      try channel.transmit.take(into: &sending)
    } catch {
      offence = Self.reason(consume error)
    }
    if sending.isEmpty { return false }
    record.begin(.transmit, count: sending.count, index: channel.transmit.index)
    record.mark(sending)
    record.commit(.transmit, index: channel.transmit.index)
    channel.transmit.publish()
    record.end()
    return true
  }

  /// Opens the aggregate at whose first slot the next packets begin.
  /// - Returns: false where it is against the rules.
  @inline(never)
  mutating func openNext() -> Bool {
    let packets: Int
    do throws(AggregateError) {
      packets = try sending.openAggregate(from: nextToSend).packets
    } catch {
      return false
    }
    return packets > 1 && aggregates.begin(sending[nextToSend].tag, packets: packets)
  }

  /// A packet is done with, sent or not: its tag is the instance's again, that of an aggregate after its last packet.
  mutating func finish(_ tag: UInt16) {
    if aggregates.total > 0 && !aggregates.finish(tag) { return }
    completed.append(Descriptor(segment: 0, tag: tag))
  }

  @inline(never)
  private static func reason(_ error: consuming ChannelError) -> EndReason {
    if case .endlessPacket = error { .endlessPacket } else { .indexJump }
  }

  // MARK: To the instance

  /// Copies a packet into segments of the instance: the only copy between the device and the instance.
  /// - Parameters:
  ///   - slots: the packet's, metadata included; their bytes lie in the host's arena.
  ///   - host: the host's arena in this process.
  ///   - mark: the tag of the first slot.
  mutating func copy(
    _ slots: UnsafePointer<Descriptor>, _ count: Int, from host: UnsafeMutableRawPointer,
    mark: UInt16 = 0
  ) {
    var bytes: UInt64 = 0
    var position = 0
    while position < count {
      let slot = slots[position]
      position &+= 1
      if slot.flags.contains(.offload) {
        delivering.append(slot)
        if position == 1 { delivering[delivering.count &- 1].tag = mark }
        continue
      }
      guard var own = ledger.takeFree(length: slot.length) else { preconditionFailure() }
      own.flags = slot.flags
      own.tag = position == 1 ? mark : slot.tag
      (arena + Int(own.position)).copyMemory(
        from: host + Int(slot.position), byteCount: Int(slot.length))
      delivering.append(own)
      bytes &+= UInt64(slot.length)
    }
    counts[.receivedPackets] &+= 1
    counts[.receivedBytes] &+= bytes
    counts[.copiedPackets] &+= 1
    counts[.copiedBytes] &+= bytes
  }

  /// Receive ring: as far as there is room.
  @inline(__always)
  mutating func pushDelivered() {
    if channel.wantsAggregates { delivering.joinPackets() }
    let moved = channel.receive.place(delivering)
    if moved == 0 { return }
    record.begin(.receive, count: moved, index: channel.receive.index)
    ledger.giveTaken(delivering, count: moved)
    record.commit(.receive, index: channel.receive.index)
    channel.receive.publish()
    record.end()
    delivering.removeFirst(moved)
  }

  /// Completion ring: as far as there is room.
  /// - Returns: whether there was any.
  mutating func handBack() -> Bool {
    // What is in flight must have room when it lands.
    if !orphans.isEmpty { orphans.move(into: &completed, leaving: inFlightCount) }
    let done = channel.completion.place(completed)
    if done == 0 { return false }
    record.begin(.completion, count: done, index: channel.completion.index)
    record.clear(completed, count: done)
    record.commit(.completion, index: channel.completion.index)
    channel.completion.publish()
    record.end()
    completed.removeFirst(done)
    return true
  }

  /// Whether nothing waits for room in its completion ring.
  var owesNothing: Bool { completed.isEmpty && orphans.isEmpty }

  /// The device has done with a packet of the instance.
  mutating func land(_ flight: HeaderSlots.Flight) {
    if flight.epoch == 0 { inFlight.0 &-= 1 } else { inFlight.1 &-= 1 }
    if flight.segment != HeaderSlots.noSegment { ledger.endSending(flight.segment) }
    if !isClosed { finish(flight.tag) }
  }

  /// Whether nothing is with the device any more that was so before some of its memory was last taken from it.
  var isSettled: Bool { (epoch == 0 ? inFlight.1 : inFlight.0) == 0 }

  /// Publishes the change of each counter since the last time.
  mutating func publish(to statistics: HostStatistics) {
    counts[.segmentsHost] = UInt64(ledger.hostCount)
    counts[.segmentsInstance] = UInt64(ledger.instanceCount)
    counts[.segmentsSending] = UInt64(ledger.sendingCount)
    counts[.ringReceive] = UInt64(channel.receive.level)
    counts[.ringTransmit] = UInt64(channel.transmit.level)
    counts.publish { statistics.add($1, instance: index, counter: $0) }
  }
}
