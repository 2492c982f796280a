import Driver
import Memory
import PCI
import Rings
import Virtio
import VirtioTransports

/// Makes the rings of a device and enables them, before DRIVER_OK (virtio 1.2, 3.1.1).
struct QueueBuilder: ~Copyable {
  private let transport: any VirtioTransport
  private let features: VirtioFeatures
  private let interrupts: InterruptVectors
  private var rings: DMAZone
  private let arena: DMARange
  private let ringSize: Int
  private let maximumPairs: Int

  init(
    transport: any VirtioTransport, features: VirtioFeatures, interrupts: InterruptVectors,
    maximumPairs: Int, resources: consuming DriverResources
  ) {
    self.transport = transport
    self.features = features
    self.interrupts = interrupts
    arena = resources.arena
    ringSize = resources.ringSize
    rings = resources.takeRings()
    self.maximumPairs = maximumPairs
  }

  /// A pair in the format that was negotiated.
  mutating func makePair(_ index: Int) throws(DriverError) -> VirtioNetQueuePair {
    switch (features.contains(.packedRing), features.contains(.inOrder)) {
    case (false, false): VirtioNetQueuePair(try makePair(index, SplitQueue<AnyOrder>.self))
    case (false, true): VirtioNetQueuePair(try makePair(index, SplitQueue<InOrder>.self))
    case (true, false): VirtioNetQueuePair(try makePair(index, PackedQueue<AnyOrder>.self))
    case (true, true): VirtioNetQueuePair(try makePair(index, PackedQueue<InOrder>.self))
    }
  }

  private mutating func makePair<Ring: Virtqueue & ~Copyable>(
    _ index: Int, _ format: Ring.Type
  ) throws(DriverError) -> RingPair<Ring> {
    let receive = try makeRing(2 * index, format)
    let transmit = try makeRing(2 * index + 1, format)
    let plainHeader = try allocate(VirtioNetHeader.byteCount, alignment: 64)
    let headers = try allocate(transmit.size * 16, alignment: 64)
    let tables =
      features.contains(.indirectDescriptors)
      ? try allocate(transmit.size * RingPair<Ring>.tableEntries * 16, alignment: 64) : nil
    let vector = interrupts.vector(ofPair: index).map { UInt16($0) } ?? VirtioPCI.noVector
    let receiveDoorbell = try transport.enable(2 * index, receive.addresses, vector: vector)
    let transmitDoorbell = try transport.enable(
      2 * index + 1, transmit.addresses, vector: vector)
    return RingPair(
      receiveRing: receive, transmitRing: transmit, index: index, arena: arena,
      plainHeader: plainHeader, headers: headers, tables: tables, features: features,
      plainness: ReceiveHeader.Plainness(features), receiveDoorbell: receiveDoorbell,
      transmitDoorbell: transmitDoorbell,
      interruptLine: interrupts.kind == .intx ? INTxLine(transport) : nil,
      transport: transport, vector: vector)
  }

  /// 5.1.2: it comes after all pairs that the device has with MQ, after the first one without.
  mutating func makeControlQueue() throws(DriverError) -> any CommandQueue {
    switch (features.contains(.packedRing), features.contains(.inOrder)) {
    case (false, false): try makeControlQueue(SplitQueue<AnyOrder>.self)
    case (false, true): try makeControlQueue(SplitQueue<InOrder>.self)
    case (true, false): try makeControlQueue(PackedQueue<AnyOrder>.self)
    case (true, true): try makeControlQueue(PackedQueue<InOrder>.self)
    }
  }

  private mutating func makeControlQueue<Ring: Virtqueue & ~Copyable>(
    _ format: Ring.Type
  ) throws(DriverError) -> any CommandQueue {
    let number = features.contains(.multiqueue) ? 2 * maximumPairs : 2
    let ring = try makeRing(number, format, limit: 64)
    let buffer = try allocate(4096, alignment: 64)
    let doorbell = try transport.enable(number, ring.addresses, vector: VirtioPCI.noVector)
    return ControlQueue(ring: ring, doorbell: doorbell, buffer: buffer)
  }

  private mutating func makeRing<Ring: Virtqueue & ~Copyable>(
    _ queue: Int, _ format: Ring.Type, limit: Int = .max
  ) throws(DriverError) -> Ring {
    let offered = transport.maximumSize(ofQueue: queue)
    // 4.1.4.3.1: 0 means that the queue does not exist.
    guard offered >= 2, Ring.allows(size: offered) else {
      throw .unsupported("\(transport.function.name): queue \(queue) has a size of \(offered)")
    }
    let size = min(offered, min(ringSize, limit))
    let memory = try allocate(Ring.byteCount(size: size), alignment: 4096)
    return Ring(memory: memory, size: size, usesEventIndex: features.contains(.eventIndex))
  }

  private mutating func allocate(_ byteCount: Int, alignment: Int) throws(DriverError) -> DMARange {
    guard let range = rings.allocate(byteCount: byteCount, alignment: alignment) else {
      throw .outOfRingMemory(needed: byteCount)
    }
    return range
  }
}

/// Holds a value that cannot be copied until somebody takes it.
final class Box<Value: ~Copyable> {
  private var value: Value?

  init() { value = nil }

  func put(_ new: consuming Value) { value = consume new }
  func take() -> Value? { value.take() }
}
