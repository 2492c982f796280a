import CLinux
import Capture
import Channel
import Driver
import Memory
import Steering

/// The way of every packet between one queue pair and the instances that share it, in both directions, run to completion in
/// bursts. Read ``turn()`` from top to bottom.
///
/// A received packet is copied once, from the host's arena into that of each instance that it is for; a packet to be sent is
/// read by the device where the instance has put it, but for its headers. The device is checked by the driver, the
/// instances by their table.
@usableFromInline
package struct SharedPath<Pair: NetworkQueuePair & ~Copyable>: ~Copyable, QueuePath {
  @usableFromInline package typealias QueuePair = Pair

  @usableFromInline var queuePair: Pair
  @usableFromInline var instances: InstanceTable
  /// What packets go through between the two.
  @usableFromInline var stages = StageTable()
  /// Who owns each of the host's own receive segments: the host or the device.
  @usableFromInline var ledger: SegmentLedger

  @usableFromInline var posts = Burst(capacity: 128)
  @usableFromInline var received = Burst(capacity: 128)
  @usableFromInline var sending = Burst(capacity: 192)
  @usableFromInline var completed = Burst(capacity: 64)
  /// Packets that the device has done with, in all.
  @usableFromInline var handedBack: UInt32 = 0
  @usableFromInline package var times = PathTimes()
  /// What earlier queue pairs of this path have counted.
  private var earlier = QueueStatistics()

  init(
    queuePair: consuming Pair, instances: consuming InstanceTable, ledger: consuming SegmentLedger
  ) {
    self.queuePair = queuePair
    self.instances = instances
    self.ledger = ledger
  }

  @inlinable package var hasUpdate: Bool { instances.mailbox.hasUpdate || instances.tap.hasUpdate }
  @inlinable package mutating func takeUpdate() {
    instances.tap.takeUpdate()
    if instances.mailbox.hasUpdate {
      stages.takeUpdate(&ledger, &instances)
      instances.takeUpdate()
    }
  }

  @inlinable @inline(never)
  package mutating func turn() throws(HostError) -> Bool {
    instances.beginTurn()
    var worked = instances.takeReturnedSegments()
    try postSegments(of: &ledger, to: &queuePair, by: &posts)
    if stages.isOn, stages.serve(&ledger, &instances, &times) { worked = true }
    if try receive() { worked = true }
    if try transmit() { worked = true }
    if try complete() { worked = true }
    if stages.isOn { stages.ring() }
    instances.ringDoorbells()
    return worked
  }

  /// As ``turn()``.
  @inlinable @inline(never)
  package mutating func timedTurn() throws(HostError) -> Bool {
    instances.beginTurn()
    var worked = instances.takeReturnedSegments()
    try postSegments(of: &ledger, to: &queuePair, by: &posts)
    let begin = monotonic_nanoseconds()
    if stages.isOn {
      stages.now = begin
      if stages.serve(&ledger, &instances, &times) { worked = true }
    }
    try takeReceived()
    if !received.isEmpty {
      let driven = monotonic_nanoseconds()
      deliver()
      let delivered = monotonic_nanoseconds()
      times.record(.receive, driven &- begin)
      times.record(.deliver, delivered &- driven)
      instances.mark(&times, at: delivered)
      worked = true
    }
    let taken = monotonic_nanoseconds()
    if try transmit() {
      let sent = monotonic_nanoseconds()
      times.record(.transmit, sent &- taken)
      instances.markRing(&times, done: handedBack, at: sent)
      worked = true
    }
    if try complete() { worked = true }
    if stages.isOn {
      stages.ring()
      stages.now = 0
    }
    instances.ringDoorbells()
    return worked
  }

  @inlinable @inline(never)
  package mutating func lookAtMarks() { instances.look(&times, done: handedBack) }

  /// Device -> receive rings.
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
    if instances.tap.isOn {
      instances.tap.beginBurst()
      instances.captureReceived(received)
    }
    if stages.isOn { stages.enter(&received, isSent: false, &ledger, &instances) }
    instances.deliver(received)
    for index in 0..<received.count where !received[index].flags.contains(.offload) {
      ledger.reclaim(received[index].segment)
    }
    received.removeAll()
  }

  /// Transmit rings -> device.
  @inlinable
  mutating func transmit() throws(HostError) -> Bool {
    if sending.isEmpty {
      if instances.tap.isOn { instances.tap.beginBurst() }
      instances.gather(into: &sending)
      if stages.isOn {
        stages.enter(&sending, isSent: true, &ledger, &instances)
        stages.depart(into: &sending)
      }
      if instances.tap.isOn { instances.tap.capture(.wireTransmit, sending) }
    }
    if sending.isEmpty { return false }
    let before = sending.count
    do throws(DriverError) {
      try queuePair.transmit(&sending)
    } catch {
      throw .driver(error)
    }
    return sending.count != before
  }

  /// Device -> completion rings.
  @inlinable
  mutating func complete() throws(HostError) -> Bool {
    do throws(DriverError) {
      try queuePair.completeTransmit(into: &completed)
    } catch {
      throw .driver(error)
    }
    let worked = !completed.isEmpty
    handedBack &+= UInt32(truncatingIfNeeded: completed.count)
    if stages.isOn { stages.takeCompleted(&completed, &ledger, &instances) }
    instances.complete(&completed)
    return worked
  }

  @usableFromInline
  package mutating func prepareToSleep() -> Bool {
    times.forgetChannel()
    guard instances.prepareToSleep(isBlocked: !sending.isEmpty),
      !stages.isOn || stages.prepareToSleep(isBlocked: !sending.isEmpty)
    else { return false }
    return queuePair.armInterrupts(transmit: instances.inFlight > 0)
  }

  /// What the driver has not taken waits for the device, which a thread that spins could keep from a core.
  @usableFromInline package var sleepLimit: Int32 {
    sending.isEmpty ? instances.sleepLimit : 1
  }

  @usableFromInline
  package mutating func wake(by rings: UInt64) {
    queuePair.disarmInterrupts()
    if stages.isOn { stages.wake() }
    instances.wake(by: rings)
  }

  @discardableResult @usableFromInline
  package mutating func takeBackFromDevice() -> Bool {
    // Packets that the driver has not taken yet will not be sent either: the burst holds them until the new pair does.
    while true {
      queuePair.takeBack(segments: &posts, packets: &completed)
      if posts.isEmpty && completed.isEmpty { break }
      for index in 0..<posts.count { ledger.reclaim(posts[index].segment) }
      posts.removeAll()
      if stages.isOn { stages.takeCompleted(&completed, &ledger, &instances) }
      instances.complete(&completed)
    }
    instances.ringDoorbells()
    return true
  }

  @usableFromInline
  package mutating func goOn(with new: consuming Pair) {
    earlier += queuePair.statistics
    queuePair = new
  }

  @usableFromInline
  package var report: PathReport {
    var sum = earlier
    sum += queuePair.statistics
    return PathReport(
      driver: sum, dropsRingFull: 0, segmentsWithHost: ledger.hostCount,
      segmentsWithDevice: ledger.deviceCount, segmentsWithInstance: instances.segmentsWithInstances,
      levels: RingLevels(device: instances.inFlight))
  }

  @usableFromInline
  package mutating func publish(to statistics: HostStatistics) {
    instances.publish(to: statistics)
    if stages.isOn { stages.publish(to: statistics) }
  }
}
