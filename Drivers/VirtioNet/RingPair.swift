import Driver
import Memory
import Rings
import Virtio
import VirtioTransports

/// A receive and a transmit virtqueue of one format: what a queue pair does, in Receive.swift and Transmit.swift for the
/// packets themselves. One thread.
struct RingPair<Ring: Virtqueue & ~Copyable>: ~Copyable {
  var receiveRing: Ring
  var transmitRing: Ring
  let index: Int
  let arena: DMARange
  /// What a packet that asks for nothing has before it: never changed by the driver, and the same for all.
  let plainHeader: DMARange
  /// One header of 16 bytes for each head of the transmit ring, for packets that ask for something.
  let headers: DMARange
  /// One indirect table for each head of the transmit ring, or none.
  let tables: DMARange?
  let features: VirtioFeatures
  let plainness: ReceiveHeader.Plainness
  let receiveDoorbell: QueueDoorbell
  let transmitDoorbell: QueueDoorbell
  let interruptLine: INTxLine?
  let transport: any VirtioTransport
  let vector: UInt16
  var statistics = QueueStatistics()

  /// Pieces of a packet whose last buffers have not come yet.
  var partial = Burst(capacity: Descriptor.maximumSlots)
  var partialHeader = ReceiveHeader()
  var partialBytes = 0
  var hasEmptyPiece = false
  /// Buffers that are still to come for the packet in `partial`.
  var missing = 0
  /// The next of them.
  var further = Burst(capacity: 1)
  /// Where buffers end in their segments, all of one size: learned when they are posted.
  var receiveBufferEnd: UInt32 = 0
  /// Where they begin, beyond a multiple of 64.
  var receiveBufferLead: UInt32 = 0
  /// A buffer that goes back to the device.
  var reposted = Burst(capacity: 1)
  /// Tags of packets that were refused, until they are completed.
  var refused = Burst(capacity: 64)

  /// Buffers of a packet that has not ended may have to go back.
  @inline(__always)
  var receiveRoom: Int { receiveRing.room &- partial.count }

  @inline(__always)
  mutating func postReceive(_ burst: inout Burst) {
    let count = min(burst.count, receiveRoom)
    if count == 0 { return }
    receiveBufferEnd = burst[0].offset &+ burst[0].length
    receiveBufferLead = burst[0].offset & 63
    receiveRing.addWritable(burst, count: count, base: arena.iova)
    burst.removeFirst(count)
    showReceive()
  }

  @inline(__always)
  mutating func showReceive() {
    receiveRing.publish()
    if receiveRing.shouldNotify() {
      receiveDoorbell.ring()
      statistics.doorbells &+= 1
    }
  }

  @inline(__always)
  mutating func completeTransmit(into burst: inout Burst) throws(DriverError) {
    refused.move(into: &burst)
    do throws(RingError) {
      try transmitRing.takeUsed(into: &burst, limit: burst.room, usually: 2)
    } catch {
      throw .ring(queue: index &* 2 &+ 1, error)
    }
    if transmitRing.shouldRemind() {
      transmitDoorbell.ring()
      statistics.doorbells &+= 1
    }
  }

  mutating func armInterrupts(transmit: Bool) -> Bool {
    let receiveIsQuiet = receiveRing.arm()
    let transmitIsQuiet = transmit ? transmitRing.arm() : true
    return receiveIsQuiet && transmitIsQuiet && refused.isEmpty
  }

  mutating func disarmInterrupts() {
    receiveRing.disarm()
    transmitRing.disarm()
    interruptLine?.acknowledge()
  }

  mutating func resetReceiveRing(into segments: inout Burst) throws(DriverError) {
    guard features.contains(.ringReset) else {
      throw .unsupported("\(transport.function.name) cannot reset a single queue")
    }
    precondition(segments.room >= receiveRing.outstanding + partial.count)
    try transport.resetQueue(2 * index)
    takeBackReceive(&segments)
    receiveRing.restart()
    _ = try transport.enable(2 * index, receiveRing.addresses, vector: vector)
  }

  mutating func takeBack(segments: inout Burst, packets: inout Burst) {
    takeBackReceive(&segments)
    refused.move(into: &packets)
    while packets.room > 0, let slot = transmitRing.takeOutstanding() { packets.append(slot) }
  }

  /// The receive segments that the device held, and those of a packet that is not whole yet.
  private mutating func takeBackReceive(_ segments: inout Burst) {
    partial.move(into: &segments)
    missing = 0
    while segments.room > 0, let slot = receiveRing.takeOutstanding() { segments.append(slot) }
  }
}

extension Virtqueue where Self: ~Copyable {
  /// Where it lies, for a transport.
  var addresses: VirtqueueAddresses {
    VirtqueueAddresses(
      size: size, descriptorArea: descriptorArea, driverArea: driverArea, deviceArea: deviceArea)
  }
}

/// The one interrupt line of a function without message-signalled interrupts: masked when it fires, let through again
/// when its reason has been read (virtio 1.2, 4.1.4.5).
final class INTxLine: @unchecked Sendable {
  private let transport: any VirtioTransport

  init(_ transport: any VirtioTransport) { self.transport = transport }

  func acknowledge() {
    _ = transport.readInterruptStatus()
    // A function that is gone shows itself at the next look at its status.
    try? transport.function.unmaskINTx()
  }
}
