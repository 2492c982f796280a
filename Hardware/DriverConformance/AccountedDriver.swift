import Driver
import Memory

/// A driver that has been started, with its first queue pair and an account of what it holds: whatever its device does,
/// each thing comes back once. What comes back that it did not hold is said by ``stop()``. One thread.
package final class AccountedDriver<D: NetworkDriver & ~Copyable> {
  package var driver: D
  package var pair: D.QueuePair
  private var posted: [UInt32: Descriptor] = [:]
  private var inFlight: Set<UInt16> = []
  private var strays: [String] = []

  package init(_ resources: consuming DriverResources) throws(DriverError) {
    var driver = try D(resources)
    let pair = driver.takeQueuePair(0)
    try driver.start()
    self.driver = driver
    self.pair = pair
  }

  /// Posts segments, for all of which there must be room.
  package func post(_ slots: [Descriptor]) throws {
    var burst = Burst(capacity: max(1, slots.count))
    for slot in slots {
      posted[slot.segment] = slot
      burst.append(slot)
    }
    try pair.postReceive(&burst)
    let left = burst.count
    try require(left == 0, "postReceive left \(left) of \(slots.count) segments")
  }

  /// Takes what has come, once.
  /// - Returns: the slots, metadata among them, and why no more will come.
  package func receive() -> (slots: [Descriptor], failure: DriverError?) {
    var burst = Burst(capacity: 128)
    var failure: DriverError?
    do throws(DriverError) {
      try pair.receive(into: &burst)
    } catch {
      failure = error
    }
    let slots = (0..<burst.count).map { burst[$0] }
    for slot in slots where !slot.flags.contains(.offload) {
      guard let lent = posted.removeValue(forKey: slot.segment) else {
        strays.append("segment \(slot.segment) was received and not posted")
        continue
      }
      let end = slot.offset + slot.length
      if slot.offset < lent.offset || end > lent.offset + lent.length || slot.length == 0 {
        strays.append("\(slot.length) bytes at \(slot.offset) of segment \(slot.segment)")
      }
    }
    return (slots, failure)
  }

  /// Sends packets, for all of which there must be room.
  /// - Parameter slots: of all packets, each with its tag.
  package func transmit(_ slots: [Descriptor]) throws {
    var burst = Burst(capacity: max(1, slots.count))
    for slot in slots { burst.append(slot) }
    try pair.transmit(&burst)
    let left = burst.count
    try require(left == 0, "transmit left \(left) of \(slots.count) slots")
    inFlight.formUnion(slots.map(\.tag))
  }

  /// Takes completions, once.
  /// - Returns: the packets' tags, and why no more will come.
  package func complete() -> (tags: [UInt16], failure: DriverError?) {
    var burst = Burst(capacity: 64)
    var failure: DriverError?
    do throws(DriverError) {
      try pair.completeTransmit(into: &burst)
    } catch {
      failure = error
    }
    return (takeBack(packets: burst), failure)
  }

  /// What the driver has given back unused.
  package func takeBack(segments: borrowing Burst) {
    for index in 0..<segments.count {
      let segment = segments[index].segment
      if posted.removeValue(forKey: segment) == nil {
        strays.append("segment \(segment) came back and was not posted")
      }
    }
  }

  @discardableResult
  private func takeBack(packets: borrowing Burst) -> [UInt16] {
    let tags = (0..<packets.count).map { packets[$0].tag }
    for tag in tags where inFlight.remove(tag) == nil {
      strays.append("packet \(tag) came back and was not sent")
    }
    return tags
  }

  /// Whether it holds no segment.
  package var holdsNoSegment: Bool { posted.isEmpty }

  /// Stops the driver, which gives back all that it held.
  package func stop() throws {
    driver.stop()
    var segments = Burst(capacity: 64)
    var packets = Burst(capacity: 64)
    while true {
      pair.takeBack(segments: &segments, packets: &packets)
      if segments.isEmpty && packets.isEmpty { break }
      takeBack(segments: segments)
      takeBack(packets: packets)
      segments.removeAll()
      packets.removeAll()
    }
    try require(strays.isEmpty, strays.joined(separator: "; "))
    let (segmentCount, packetCount) = (posted.count, inFlight.count)
    try require(
      segmentCount + packetCount == 0, "\(segmentCount) segments, \(packetCount) packets are lost")
  }
}
