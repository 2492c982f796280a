import Channel
import Driver
import Memory

/// The way of every packet between one queue pair and one queue of a stack instance's channel, in both directions,
/// run to completion in bursts. Read ``turn()`` from top to bottom.
///
/// Nothing here reads payload. The device is checked by the driver, the instance here: each value from shared memory
/// has been copied once before it is looked at.
///
/// Seen by the benchmarks in this package too. All of it is inlinable, so that a host program has it compiled for each of its drivers: Tests/System/hot-path.sh sees
/// to it that nothing in ``turn()`` counts references, allocates, locks or goes through a witness table.
@usableFromInline
package struct PacketPath<QueuePair: NetworkQueuePair & ~Copyable>: ~Copyable, QueuePath {
  @usableFromInline var queuePair: QueuePair
  @usableFromInline var channel: HostEnd
  /// Who owns each receive segment: the host, the device or the instance.
  @usableFromInline var ledger: SegmentLedger
  /// The part of the arena that belongs to the instance, in bytes from its start.
  @usableFromInline let transmitPart: Range<UInt64>
  @usableFromInline var counts = PathCounts()

  @usableFromInline var posts = Burst(capacity: 64)
  @usableFromInline var received = Burst(capacity: 128)
  @usableFromInline var returned = Burst(capacity: 64)
  @usableFromInline var sending = Burst(capacity: 128)
  @usableFromInline var completed = Burst(capacity: 64)
  /// What earlier queue pairs of this path have counted.
  private var earlier = QueueStatistics()
  /// Packets that the device or the completion ring still owes the instance.
  @usableFromInline var inFlight = 0
  @usableFromInline var aggregates = AggregateTags()

  package init(
    queuePair: consuming QueuePair, channel: consuming HostEnd, ledger: consuming SegmentLedger,
    transmitPart: Range<UInt64>
  ) {
    self.queuePair = queuePair
    self.channel = channel
    self.ledger = ledger
    self.transmitPart = transmitPart
  }

  /// Never: the instance stays as long as the host.
  @inlinable package var hasUpdate: Bool { false }
  @inlinable package mutating func takeUpdate() {}

  /// One burst in each direction.
  /// - Returns: whether there was anything to do.
  @inlinable @inline(never)
  package mutating func turn() throws(HostError) -> Bool {
    var worked = try takeReturnedSegments()
    try postSegments(of: &ledger, to: &queuePair, by: &posts)
    if try receive() { worked = true }
    if try transmit() { worked = true }
    if try complete() { worked = true }
    if worked { channel.doorbell.ring() }
    return worked
  }

  /// Free ring: the instance gives receive segments back.
  @inlinable
  mutating func takeReturnedSegments() throws(HostError) -> Bool {
    do throws(ChannelError) {
      try channel.free.pop(into: &returned)
    } catch {
      throw .instance(.channel(error))
    }
    if returned.isEmpty { return false }
    do throws(LedgerError) {
      try ledger.takeBack(&returned)
    } catch {
      throw .instance(.ledger(error))
    }
    return true
  }

  /// Device -> receive ring.
  @inlinable
  mutating func receive() throws(HostError) -> Bool {
    do throws(DriverError) {
      try queuePair.receive(into: &received)
    } catch {
      throw .driver(error)
    }
    let count = received.count
    if count == 0 { return false }
    ledger.give(received)
    if channel.wantsAggregates { received.joinPackets() }
    channel.receive.push(&received)
    // An instance that does not drain its ring loses what does not fit: its own packets and no one else's.
    for index in 0..<received.count {
      let slot = received[index]
      if !slot.flags.contains(.offload) { ledger.reclaim(slot.segment) }
      if !slot.flags.contains(.more) || slot.flags.contains(.aggregate) {
        counts.dropsRingFull &+= 1
      }
    }
    received.removeAll()
    return true
  }

  /// Transmit ring -> device.
  @inlinable
  mutating func transmit() throws(HostError) -> Bool {
    if sending.isEmpty {
      do throws(ChannelError) {
        try channel.transmit.pop(into: &sending)
      } catch {
        throw .instance(.channel(error))
      }
      if sending.isEmpty { return false }
      try checkPieces()
    }
    let before = sending.count
    do throws(DriverError) {
      try queuePair.transmit(&sending)
    } catch {
      throw .driver(error)
    }
    return sending.count != before
  }

  /// Every piece lies inside the instance's own transmit part, or the instance is closed. Metadata stands only before a
  /// packet's pieces: elsewhere a driver takes the slot for a piece, whose place nobody would have checked. Aggregates are
  /// opened. Flags that are not an instance's to set are taken off: above all the one that says that nobody else writes
  /// before its data.
  @inlinable
  mutating func checkPieces() throws(HostError) {
    var index = try checkPieces(from: 0)
    while index < sending.count {
      try open(at: index)
      index = try checkPieces(from: index)
    }
  }

  /// - Returns: the first slot with flags that are not an instance's, or the burst's count.
  @inlinable @inline(__always)
  mutating func checkPieces(from first: Int) throws(HostError) -> Int {
    var isFirst = first == 0 || !sending[first &- 1].flags.contains(.more)
    for index in first..<sending.count {
      let slot = sending[index]
      if slot.flags.rawValue & ~Descriptor.Flags.ofInstances.rawValue != 0 { return index }
      if slot.flags.contains(.offload) {
        if !isFirst || !slot.flags.contains(.more) || Offload(slot) == nil {
          throw .instance(.badOffload)
        }
      } else {
        let start = slot.position
        let end = start &+ UInt64(slot.length)
        if slot.length == 0 || start < transmitPart.lowerBound || end > transmitPart.upperBound {
          throw .instance(.outsideTransmitPart(position: start, length: slot.length))
        }
      }
      isFirst = !slot.flags.contains(.more)
      if isFirst { inFlight &+= 1 }
    }
    return sending.count
  }

  /// Opens the aggregate that a slot belongs to, if it does, and takes off flags that are not an instance's.
  @inlinable @inline(never)
  mutating func open(at index: Int) throws(HostError) {
    if sending[index].flags.contains(.aggregate) {
      var first = index
      while first > 0 && sending[first &- 1].flags.contains(.more) { first &-= 1 }
      let packets: Int
      do throws(AggregateError) {
        packets = try sending.openAggregate(from: first).packets
      } catch {
        throw .instance(.aggregate(error))
      }
      let tag = sending[first].tag
      if !aggregates.begin(tag, packets: packets) { throw .instance(.aggregateTagInUse(tag)) }
      // It is one for the instance.
      inFlight &-= packets &- 1
    }
    sending[index].flags.rawValue &= Descriptor.Flags.ofInstances.rawValue
  }

  /// Device -> completion ring: what has been sent is the instance's again.
  @inlinable
  mutating func complete() throws(HostError) -> Bool {
    let before = completed.count
    do throws(DriverError) {
      try queuePair.completeTransmit(into: &completed)
    } catch {
      throw .driver(error)
    }
    if aggregates.total > 0 { aggregates.keepBack(&completed, from: before) }
    let count = completed.count
    if count == 0 { return false }
    // The ring has room for every packet of the transmit ring; where the instance does not drain it, it waits here.
    channel.completion.push(&completed)
    let done = count - completed.count
    inFlight &-= done
    return done > 0
  }

  @usableFromInline
  package mutating func prepareToSleep() -> Bool {
    let isQuiet = channel.prepareToSleep()
    guard isQuiet || !sending.isEmpty else { return false }
    return queuePair.armInterrupts(transmit: inFlight > 0)
  }

  /// What the driver has not taken waits for the device, which a thread that spins could keep from a core.
  @usableFromInline package var sleepLimit: Int32 { sending.isEmpty ? 1000 : 1 }

  @usableFromInline
  package mutating func wake(by rings: UInt64) {
    queuePair.disarmInterrupts()
    channel.doorbell.awake()
  }

  /// - Returns: false while the instance leaves no room in its completion ring.
  @discardableResult @usableFromInline
  package mutating func takeBackFromDevice() -> Bool {
    while true {
      let before = completed.count
      queuePair.takeBack(segments: &posts, packets: &completed)
      let grew = posts.count + completed.count > 0
      if aggregates.total > 0 { aggregates.keepBack(&completed, from: before) }
      let count = completed.count
      for index in 0..<posts.count { ledger.reclaim(posts[index].segment) }
      posts.removeAll()
      channel.completion.push(&completed)
      inFlight -= count - completed.count
      if grew { channel.doorbell.ring() }
      if !completed.isEmpty { return false }
      if !grew { return true }
    }
  }

  @usableFromInline
  package mutating func goOn(with new: consuming QueuePair) {
    earlier += queuePair.statistics
    queuePair = new
  }

  @usableFromInline
  package var report: PathReport {
    var sum = earlier
    sum += queuePair.statistics
    return PathReport(
      driver: sum, dropsRingFull: counts.dropsRingFull, segmentsWithHost: ledger.hostCount,
      segmentsWithDevice: ledger.deviceCount, segmentsWithInstance: ledger.instanceCount)
  }

  @usableFromInline
  package mutating func publish(to statistics: HostStatistics) {}
}

extension Descriptor.Flags {
  /// What an instance may say of what it sends.
  @inlinable static var ofInstances: Descriptor.Flags {
    Descriptor.Flags(rawValue: Descriptor.Flags.more.rawValue | Descriptor.Flags.offload.rawValue)
  }
}

/// What the host itself counts on a path; the driver counts the rest (``QueueStatistics``).
@usableFromInline
struct PathCounts {
  /// Packets that found no room in the instance's receive ring.
  @usableFromInline var dropsRingFull: UInt64 = 0
}

extension QueueStatistics {
  static func += (sum: inout QueueStatistics, other: QueueStatistics) {
    sum.receivedPackets &+= other.receivedPackets
    sum.receivedBytes &+= other.receivedBytes
    sum.receiveErrors &+= other.receiveErrors
    sum.sentPackets &+= other.sentPackets
    sum.sentBytes &+= other.sentBytes
    sum.sendErrors &+= other.sendErrors
    sum.doorbells &+= other.doorbells
  }
}
