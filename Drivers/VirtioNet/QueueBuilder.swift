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

  mutating func makePair(_ index: Int) throws(DriverError) -> VirtioNetQueuePair {
    let receive = try makeRing(2 * index)
    let transmit = try makeRing(2 * index + 1)
    let headers = try allocate(transmit.size * 16, alignment: 64)
    let tables =
      features.contains(.indirectDescriptors)
      ? try allocate(
        transmit.size * VirtioNetQueuePair.tableEntries * SplitRing.descriptorBytes,
        alignment: 64) : nil
    let vector = interrupts.vector(ofPair: index).map { UInt16($0) } ?? VirtioPCI.noVector
    let receiveDoorbell = try transport.enable(2 * index, receive.addresses, vector: vector)
    let transmitDoorbell = try transport.enable(
      2 * index + 1, transmit.addresses, vector: vector)
    return VirtioNetQueuePair(
      receiveRing: receive, transmitRing: transmit, index: index, arena: arena, headers: headers,
      tables: tables, features: features, receiveDoorbell: receiveDoorbell,
      transmitDoorbell: transmitDoorbell,
      interruptLine: interrupts.kind == .intx ? INTxLine(transport) : nil,
      transport: transport, vector: vector)
  }

  /// 5.1.2: it comes after all pairs that the device has with MQ, after the first one without.
  mutating func makeControlQueue() throws(DriverError) -> ControlQueue {
    let number = features.contains(.multiqueue) ? 2 * maximumPairs : 2
    let ring = try makeRing(number, limit: 64)
    let buffer = try allocate(ControlQueue.bufferBytes, alignment: 64)
    let doorbell = try transport.enable(number, ring.addresses, vector: VirtioPCI.noVector)
    return ControlQueue(ring: ring, doorbell: doorbell, buffer: buffer)
  }

  private mutating func makeRing(_ queue: Int, limit: Int = .max) throws(DriverError) -> SplitQueue
  {
    let offered = transport.maximumSize(ofQueue: queue)
    // 4.1.4.3.1: 0 means that the queue does not exist; split rings have powers of two (2.7).
    guard offered >= 2, offered <= VirtioPCI.maximumQueueSize, offered & (offered - 1) == 0 else {
      throw .unsupported("\(transport.function.name): queue \(queue) has a size of \(offered)")
    }
    let size = min(offered, min(ringSize, limit))
    let memory = try allocate(SplitQueue.byteCount(size: size), alignment: 4096)
    return SplitQueue(
      memory: memory, size: size, usesEventIndex: features.contains(.eventIndex))
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

extension SplitQueue {
  /// Where it lies, for a transport.
  var addresses: VirtqueueAddresses {
    VirtqueueAddresses(
      size: size, descriptorArea: descriptorsIOVA, driverArea: availableIOVA, deviceArea: usedIOVA)
  }
}
