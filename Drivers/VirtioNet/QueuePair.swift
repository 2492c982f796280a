import Driver
import Memory
import PCI
import Rings
import Virtio
import VirtioTransports

/// A receive and a transmit virtqueue of a network device (virtio 1.2, 5.1.6). One thread.
public struct VirtioNetQueuePair: NetworkQueuePair, ~Copyable {
  var receiveRing: SplitQueue
  var transmitRing: SplitQueue
  let index: Int
  let arena: DMARange
  /// One header of 16 bytes for each descriptor of the transmit ring, host-private: what the device reads first.
  let headers: DMARange
  /// One indirect table for each descriptor of the transmit ring, or none.
  let tables: DMARange?
  let features: VirtioFeatures
  let receiveDoorbell: QueueDoorbell
  let transmitDoorbell: QueueDoorbell
  let interruptLine: INTxLine?
  let transport: any VirtioTransport
  let vector: UInt16
  public internal(set) var statistics = QueueStatistics()

  /// Pieces of a packet whose last buffers have not come yet.
  var partial = Burst(capacity: Descriptor.maximumSlots)
  var partialHeader = ReceiveHeader()
  var partialBytes = 0
  var hasEmptyPiece = false
  /// Buffers that are still to come for the packet in `partial`.
  var missing = 0
  /// Where buffers end in their segments, all of one size: learned when they are posted.
  var receiveBufferEnd: UInt32 = 0
  /// Tags of packets that were refused, until they are completed.
  var refused = Burst(capacity: 64)

  public var receiveRoom: Int { receiveRing.room }

  @_noLocks
  public mutating func postReceive(_ burst: inout Burst) throws(DriverError) {
    let count = min(burst.count, receiveRing.room)
    if count == 0 { return }
    receiveBufferEnd = burst[0].offset &+ burst[0].length
    for slot in 0..<count { post(burst[slot]) }
    burst.removeFirst(count)
    showReceive()
  }

  @inline(__always) @_noLocks
  mutating func post(_ slot: Descriptor) {
    receiveRing.addWritable(
      iova: arena.iova &+ slot.position, byteCount: slot.length,
      cookie: slot.cookie)
  }

  @_noLocks
  mutating func showReceive() {
    receiveRing.publish()
    if receiveRing.shouldNotify() {
      receiveDoorbell.ring()
      statistics.doorbells &+= 1
    }
  }

  @_noLocks
  public mutating func completeTransmit(into burst: inout Burst) throws(DriverError) {
    refused.move(into: &burst)
    do throws(RingError) {
      let count = min(try transmitRing.usedCount(), burst.room)
      if count <= 0 { return }
      for _ in 0..<count {
        let used = try transmitRing.takeUsed()
        burst.append(
          Descriptor(segment: 0, tag: UInt16(truncatingIfNeeded: used.cookie)))
      }
    } catch {
      throw .ring(queue: index &* 2 &+ 1, error)
    }
  }

  public mutating func armInterrupts(transmit: Bool) -> Bool {
    let receiveIsQuiet = receiveRing.arm()
    let transmitIsQuiet = transmit ? transmitRing.arm() : true
    return receiveIsQuiet && transmitIsQuiet && refused.isEmpty
  }

  public mutating func disarmInterrupts() {
    receiveRing.disarm()
    transmitRing.disarm()
    interruptLine?.acknowledge()
  }

  /// Resets the receive ring alone, where the device can (VIRTIO_F_RING_RESET, 2.6.1), and brings it up again, empty and
  /// no longer broken. The other rings go on.
  /// - Parameter segments: gets what the device held; room for all of it is needed.
  public mutating func resetReceiveRing(into segments: inout Burst) throws(DriverError) {
    guard features.contains(.ringReset) else {
      throw .unsupported("\(transport.function.name) cannot reset a single queue")
    }
    precondition(segments.room >= receiveRing.outstanding + partial.count)
    try transport.resetQueue(2 * index)
    takeBackReceive(&segments)
    receiveRing.restart()
    _ = try transport.enable(2 * index, receiveRing.addresses, vector: vector)
  }

  public mutating func takeBack(segments: inout Burst, packets: inout Burst) {
    takeBackReceive(&segments)
    refused.move(into: &packets)
    while packets.room > 0, let cookie = transmitRing.takeOutstanding() {
      packets.append(Descriptor(segment: 0, tag: UInt16(truncatingIfNeeded: cookie)))
    }
  }
}

extension VirtioNetQueuePair {
  /// The receive segments that the device held, and those of a packet that is not whole yet.
  private mutating func takeBackReceive(_ segments: inout Burst) {
    partial.move(into: &segments)
    missing = 0
    while segments.room > 0, let cookie = receiveRing.takeOutstanding() {
      segments.append(Descriptor(cookie: cookie))
    }
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
