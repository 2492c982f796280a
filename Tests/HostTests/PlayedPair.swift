import Driver
import Memory

/// A queue pair without a device: as many packets come as the test says, from the segments that were posted, and what is
/// sent is done with when the test says so.
struct PlayedPair: NetworkQueuePair, ~Copyable {
  /// Packets that are about to come, packets of two pieces among them.
  var arriving = 0
  /// Packets that are about to be done with.
  var leaving = 0
  private var posted: [Descriptor] = []
  private var sent: [UInt16] = []
  private var number = 0

  mutating func postReceive(_ burst: inout Burst) throws(DriverError) {
    while !burst.isEmpty, posted.count < 64 {
      posted.append(burst[0])
      burst.removeFirst(1)
    }
  }

  mutating func receive(into burst: inout Burst) throws(DriverError) {
    while arriving > 0, burst.room >= Descriptor.maximumSlots, posted.count >= 2 {
      number += 1
      arriving -= 1
      var slot = posted.removeFirst()
      slot.length = 60
      if number % 5 == 0 {
        burst.append(Offload().slot)
      }
      if number % 3 == 0 {
        slot.flags = .more
        burst.append(slot)
        slot = posted.removeFirst()
        slot.length = 20
      }
      burst.append(slot)
    }
  }

  mutating func transmit(_ burst: inout Burst) throws(DriverError) {
    while !burst.isEmpty, sent.count < 64 {
      guard let last = burst.endOfPacket(from: 0) else { return }
      sent.append(burst[0].tag)
      burst.removeFirst(last + 1)
    }
  }

  mutating func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission { .admitted }

  mutating func completeTransmit(into burst: inout Burst) throws(DriverError) {
    while leaving > 0, !sent.isEmpty, burst.room > 0 {
      leaving -= 1
      // Not in order.
      burst.append(Descriptor(segment: 0, tag: sent.remove(at: sent.count / 2)))
    }
  }

  var receiveRoom: Int { 64 - posted.count }
  mutating func armInterrupts(transmit: Bool) -> Bool { true }
  mutating func disarmInterrupts() {}

  mutating func takeBack(segments: inout Burst, packets: inout Burst) {
    while segments.room > 0, let slot = posted.popLast() { segments.append(slot) }
    while packets.room > 0, let tag = sent.popLast() {
      packets.append(Descriptor(segment: 0, tag: tag))
    }
  }

  var statistics: QueueStatistics { QueueStatistics() }
}
