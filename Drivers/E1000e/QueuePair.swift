import Driver
import Memory
import PCI
import Rings

/// A receive and a transmit queue of the controller. One thread.
public struct E1000eQueuePair: NetworkQueuePair, ~Copyable {
  var receiveRing: DescriptorRing
  var transmitRing: DescriptorRing
  let index: Int
  let arena: DMARange
  let registers: RegisterWindow
  let receiveTail: Int
  let transmitTail: Int
  /// Copies of headers that the device changes while it segments, 256 bytes for each transmit descriptor.
  let headers: DMARange
  let isExtended: Bool
  /// Bytes of the longest frame, without its check sequence.
  let maximumFrame: Int
  private let interruptKind: InterruptKind?
  private let function: any PCIFunction
  public internal(set) var statistics = QueueStatistics()

  /// Pieces of a packet whose last descriptor has not come yet.
  var partial = Burst(capacity: Descriptor.maximumSlots)
  var partialBytes = 0
  /// The rest of the packet that is coming in is dropped.
  var isDiscarding = false
  var broken: RingError?
  /// Tags of packets that were refused, until they are completed.
  var refused = Burst(capacity: 64)

  static let bufferBytes = 2048
  static let headerBytes = 256

  /// Bytes of DMA memory that a pair needs, aligned to 128 as rings must be.
  static func byteCount(ringSize: Int) -> Int {
    2 * DescriptorRing.byteCount(size: ringSize) + ringSize * headerBytes
  }

  /// - Parameter memory: ``byteCount(ringSize:)`` zeroed bytes.
  init(
    _ controller: Controller, index: Int, memory: DMARange, ringSize: Int, arena: DMARange,
    isExtended: Bool, maximumFrame: Int, vectors: InterruptVectors
  ) {
    let bytes = DescriptorRing.byteCount(size: ringSize)
    receiveRing = DescriptorRing(memory: memory.first(bytes), size: ringSize)
    transmitRing = DescriptorRing(memory: memory.dropFirst(bytes), size: ringSize)
    headers = memory.dropFirst(2 * bytes)
    self.index = index
    self.arena = arena
    self.isExtended = isExtended
    self.maximumFrame = maximumFrame
    (registers, function) = (controller.registers, controller.function)
    interruptKind = vectors.kind
    let receive = Register.receiveQueue + index * QueueRegister.stride
    let transmit = Register.transmitQueue + index * QueueRegister.stride
    receiveTail = receive + QueueRegister.tail
    transmitTail = transmit + QueueRegister.tail
    Self.program(controller, receive, receiveRing.iova, bytes)
    Self.program(controller, transmit, transmitRing.iova, bytes)
    // 10.2.6.7: bit 22 must be set, thresholds count descriptors; nothing waits to be written back.
    controller.write(1 << 24 | 1 << 22, transmit + QueueRegister.control)
    let arbitration = Register.transmitArbitration + index * QueueRegister.stride
    controller.write(controller.read(arbitration) | 1 << 10, arbitration)
  }

  private static func program(
    _ controller: Controller, _ queue: Int, _ iova: UInt64, _ byteCount: Int
  ) {
    controller.write(UInt32(truncatingIfNeeded: iova), queue + QueueRegister.baseLow)
    controller.write(UInt32(truncatingIfNeeded: iova >> 32), queue + QueueRegister.baseHigh)
    controller.write(UInt32(byteCount), queue + QueueRegister.byteCount)
    // QEMU leaves a head as it was through a reset.
    for end in [QueueRegister.head, QueueRegister.tail] { controller.write(0, queue + end) }
  }

  /// Buffers of a packet that has not ended may have to go back.
  public var receiveRoom: Int { broken == nil ? receiveRing.room &- partial.count : 0 }

  public mutating func postReceive(_ burst: inout Burst) throws(DriverError) {
    let count = min(burst.count, receiveRoom)
    if count == 0 { return }
    for index in 0..<count {
      precondition(burst[index].length >= UInt32(Self.bufferBytes))
      post(burst[index])
    }
    burst.removeFirst(count)
    showReceive()
  }

  @inline(__always)
  mutating func post(_ slot: Descriptor) {
    receiveRing.give(arena.iova &+ slot.position, 0, cookie: slot.cookie)
  }

  mutating func showReceive() {
    registers.write32(receiveRing.publish(), at: receiveTail)
    statistics.doorbells &+= 1
  }

  public mutating func completeTransmit(into burst: inout Burst) throws(DriverError) {
    refused.move(into: &burst)
    while transmitIsDone(), burst.room > 0 { burst.append(takeSent()) }
  }

  /// Whether the last descriptor of the oldest packet has been written back.
  private func transmitIsDone() -> Bool {
    if transmitRing.outstanding == 0 { return false }
    let slots = Int(transmitRing.cookie() &>> 16)
    return transmitRing.completion(ahead: slots &- 1) & TransmitDescriptor.done != 0
  }

  /// Takes the oldest packet's descriptors back; the first one's cookie has their number and the packet's tag.
  private mutating func takeSent() -> Descriptor {
    let cookie = transmitRing.take()
    var left = Int(cookie &>> 16) &- 1
    while left > 0 {
      _ = transmitRing.take()
      left &-= 1
    }
    return Descriptor(segment: 0, tag: UInt16(truncatingIfNeeded: cookie))
  }

  private var receiveCause: UInt32 {
    interruptKind == .msix ? Cause.receive(queue: index) : Cause.received
  }
  private var transmitCause: UInt32 {
    interruptKind == .msix ? Cause.transmit(queue: index) : Cause.transmitted
  }

  public mutating func armInterrupts(transmit: Bool) -> Bool {
    guard interruptKind != nil else { return true }
    let causes = transmit ? receiveCause | transmitCause : receiveCause
    // What was polled before has left its cause behind.
    registers.write32(causes, at: Register.interruptCause)
    registers.write32(causes, at: Register.interruptMaskSet)
    // What the device wrote before it saw these is in memory once it has answered.
    _ = registers.read32(at: Register.status)
    return !receiveIsDone() && !(transmit && transmitIsDone()) && refused.isEmpty
  }

  public mutating func disarmInterrupts() {
    guard let interruptKind else { return }
    registers.write32(receiveCause | transmitCause, at: Register.interruptMaskClear)
    if interruptKind == .intx {
      _ = registers.read32(at: Register.interruptCause)
      // A function that is gone shows itself at the next look at its status.
      try? function.unmaskINTx()
    }
  }

  public mutating func takeBack(segments: inout Burst, packets: inout Burst) {
    partial.move(into: &segments)
    while segments.room > 0 && receiveRing.outstanding > 0 {
      segments.append(Descriptor(cookie: receiveRing.take()))
    }
    refused.move(into: &packets)
    while packets.room > 0 && transmitRing.outstanding > 0 { packets.append(takeSent()) }
  }
}
