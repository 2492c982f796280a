import CLinux
import Capture
import Channel
import Driver
import Memory

/// The way of every packet between one queue pair and one queue of a stack instance's channel, in both directions,
/// run to completion in bursts. Read ``turn()`` from top to bottom.
///
/// Nothing here reads payload, but where somebody captures. The device is checked by the driver, the instance here: each value from shared memory
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
  // These four lie in the record: what of them is being handed over, the next host can see.
  @usableFromInline var received: Burst
  @usableFromInline var returned: Burst
  @usableFromInline var sending: Burst
  @usableFromInline var completed: Burst
  @usableFromInline let record: PathRecord
  /// Packets that a host before this one has taken.
  @usableFromInline var orphans: OrphanedTags
  /// What earlier queue pairs of this path have counted.
  private var earlier = QueueStatistics()
  /// Packets that the device or the completion ring still owes the instance.
  @usableFromInline var inFlight = 0
  /// Packets that have been handed back, in all.
  @usableFromInline var handedBack: UInt32 = 0
  @usableFromInline package var times = PathTimes()
  @usableFromInline var aggregates = AggregateTags()
  @usableFromInline let tap: CaptureTap

  /// - Parameter record: the ledger's and the channel end's places are what it says (``PathRecord/reconcile(_:)``).
  package init(
    queuePair: consuming QueuePair, channel: consuming HostEnd, ledger: consuming SegmentLedger,
    transmitPart: Range<UInt64>, record: consuming PathRecord = PathRecord(),
    tap: CaptureTap = .none
  ) {
    self.queuePair = queuePair
    self.channel = channel
    self.ledger = ledger
    self.transmitPart = transmitPart
    received = record.burst(.receive, capacity: 128)
    returned = record.burst(.free, capacity: 64)
    sending = record.burst(.transmit, capacity: 128)
    completed = record.burst(.completion, capacity: 64)
    orphans = OrphanedTags(record.outstandingTags())
    inFlight = orphans.count
    self.tap = tap
    self.record = record
  }

  /// Of what is captured only: the instance stays as long as the host.
  @inlinable package var hasUpdate: Bool { tap.hasUpdate }
  @inlinable package mutating func takeUpdate() { tap.takeUpdate() }

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

  /// As ``turn()``.
  @inlinable @inline(never)
  package mutating func timedTurn() throws(HostError) -> Bool {
    var worked = try takeReturnedSegments()
    try postSegments(of: &ledger, to: &queuePair, by: &posts)
    let begin = monotonic_nanoseconds()
    try takeReceived()
    if !received.isEmpty {
      let driven = monotonic_nanoseconds()
      deliver()
      let delivered = monotonic_nanoseconds()
      times.record(.receive, driven &- begin)
      times.record(.deliver, delivered &- driven)
      times.markChannel(channel.receive.index, at: delivered)
      worked = true
    }
    let taken = monotonic_nanoseconds()
    if try transmit() {
      let sent = monotonic_nanoseconds()
      times.record(.transmit, sent &- taken)
      times.markRing(handedBack &+ UInt32(truncatingIfNeeded: inFlight), at: sent)
      worked = true
    }
    if try complete() { worked = true }
    if worked { channel.doorbell.ring() }
    return worked
  }

  @inlinable @inline(never)
  package mutating func lookAtMarks() {
    times.look(taken: channel.receive.taken, done: handedBack)
  }

  /// Free ring: the instance gives receive segments back.
  @inlinable
  mutating func takeReturnedSegments() throws(HostError) -> Bool {
    do throws(ChannelError) {
      try channel.free.take(into: &returned)
    } catch {
      throw .instance(.channel(error))
    }
    if returned.isEmpty { return false }
    record.begin(.free, count: returned.count, index: channel.free.index)
    do throws(LedgerError) {
      try ledger.takeBack(&returned)
    } catch {
      throw .instance(.ledger(error))
    }
    record.commit(.free, index: channel.free.index)
    channel.free.publish()
    record.end()
    return true
  }

  /// Device -> receive ring.
  @inlinable
  mutating func receive() throws(HostError) -> Bool {
    try takeReceived()
    if received.isEmpty { return false }
    deliver()
    return true
  }

  @inlinable @inline(__always)
  mutating func takeReceived() throws(HostError) {
    do throws(DriverError) {
      try queuePair.receive(into: &received)
    } catch {
      throw .driver(error)
    }
  }

  @inlinable @inline(__always)
  mutating func deliver() {
    let count = received.count
    if tap.isOn {
      tap.beginBurst()
      tap.capture(.wireReceive, received)
    }
    if channel.wantsAggregates { received.joinPackets() }
    let moved = channel.receive.place(received)
    if moved > 0 {
      if tap.isOn { tap.capture(.channelReceive, received, upTo: moved) }
      record.begin(.receive, count: moved, index: channel.receive.index)
      ledger.give(received, count: moved)
      record.commit(.receive, index: channel.receive.index)
      channel.receive.publish()
      record.end()
    }
    // An instance that does not drain its ring loses what does not fit: its own packets and no one else's.
    for index in moved..<count {
      let slot = received[index]
      if !slot.flags.contains(.offload) { ledger.reclaim(slot.segment) }
      if !slot.flags.contains(.more) || slot.flags.contains(.aggregate) {
        counts.dropsRingFull &+= 1
      }
    }
    received.removeAll()
  }

  /// Transmit ring -> device.
  @inlinable
  mutating func transmit() throws(HostError) -> Bool {
    if sending.isEmpty {
      do throws(ChannelError) {
        try channel.transmit.take(into: &sending)
      } catch {
        throw .instance(.channel(error))
      }
      if sending.isEmpty { return false }
      record.begin(.transmit, count: sending.count, index: channel.transmit.index)
      record.mark(sending)
      record.commit(.transmit, index: channel.transmit.index)
      channel.transmit.publish()
      record.end()
      try checkPieces()
      if tap.isOn {
        tap.beginBurst()
        tap.capture(.channelTransmit, sending, upTo: sending.count)
        tap.capture(.wireTransmit, sending)
      }
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
    if !orphans.isEmpty { orphans.move(into: &completed) }
    if completed.isEmpty { return false }
    return handBackCompleted()
  }

  /// - Returns: whether any was taken. The ring has room for every packet of the transmit ring; where the instance does not
  ///   drain it, completions wait here.
  @inlinable @inline(__always)
  mutating func handBackCompleted() -> Bool {
    let done = channel.completion.place(completed)
    if done == 0 { return false }
    record.begin(.completion, count: done, index: channel.completion.index)
    record.clear(completed, count: done)
    record.commit(.completion, index: channel.completion.index)
    channel.completion.publish()
    record.end()
    completed.removeFirst(done)
    inFlight &-= done
    handedBack &+= UInt32(truncatingIfNeeded: done)
    return true
  }

  @usableFromInline
  package mutating func prepareToSleep() -> Bool {
    times.forgetChannel()
    let isQuiet = channel.prepareToSleep()
    guard isQuiet || !sending.isEmpty else { return false }
    // Completions that found no room: the instance may have made some since, before it was told that we sleep.
    guard completed.isEmpty || channel.completion.room() == 0 else { return false }
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
      let grew = posts.count + completed.count + orphans.count > 0
      if aggregates.total > 0 { aggregates.keepBack(&completed, from: before) }
      for index in 0..<posts.count { ledger.reclaim(posts[index].segment) }
      posts.removeAll()
      orphans.move(into: &completed)
      _ = handBackCompleted()
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
      segmentsWithDevice: ledger.deviceCount, segmentsWithInstance: ledger.instanceCount,
      levels: RingLevels(
        receive: channel.receive.level, transmit: channel.transmit.level,
        completion: channel.completion.level, free: channel.free.level, device: inFlight))
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
