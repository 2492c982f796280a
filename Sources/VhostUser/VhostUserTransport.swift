import Driver
import PCI
import VhostUserMessages
import Virtio
import VirtioTransports

/// Virtio over vhost-user: what virtio over PCI does by registers is done by messages, and rings are told by the IOVAs
/// of the memory table.
///
/// The status is kept here where the back-end has none. Its control queue is not carried by vhost-user (a back-end has
/// data queues only), so that it and all that needs it are not offered to the driver, except MQ: pairs are switched on
/// one by one (SET_VRING_ENABLE), which needs no command, and a back-end lets more than one pair be used only where MQ
/// was agreed on.
final class VhostUserTransport: VirtioTransport {
  private let device: VhostUserFunction
  private let connection: VhostUserConnection
  private let queuePairs: Int
  private var written: VirtioStatus = []
  private var featuresAreRefused = false
  private var accepted: VirtioFeatures = []
  /// Rings that the back-end has been told of.
  private var rings: [Int] = []
  private let configuration: ConfigurationBytes

  /// What needs commands, or messages that do not exist, or an IOMMU that does not.
  private static let withheld: VirtioFeatures = VirtioFeatures.prerequisites
    .filter { $0.needs == .controlQueue && $0.feature != .multiqueue }
    .reduce([.controlQueue, .accessPlatform, .ringReset]) { $0.union($1.feature) }

  init(_ device: VhostUserFunction) throws(DriverError) {
    self.device = device
    connection = device.connection
    configuration = ConfigurationBytes()
    var pairs: UInt64 = 1
    if connection.protocolFeatures.contains(.multiqueue) {
      let connection = device.connection
      pairs = try DriverError.passing { () throws(PCIError) in
        try connection.number(.getQueueCount)
      }
      guard (1...0x8000).contains(pairs) else {
        throw .pci(connection.broken("it has \(pairs) queue pairs"))
      }
    }
    queuePairs = Int(pairs)
  }

  var function: any PCIFunction { device }

  /// MAC is always offered: where the back-end has no configuration space, the front-end has one.
  var deviceFeatures: VirtioFeatures {
    var features = VirtioFeatures(rawValue: connection.features)
    features.subtract(
      VirtioFeatures(rawValue: VhostFeature.logAll | VhostFeature.protocolFeatures))
    features.subtract(Self.withheld)
    if !connection.protocolFeatures.contains(.configuration) {
      features.subtract([.mtu, .status])
      features.insert(.macAddress)
    }
    if !connection.protocolFeatures.contains(.multiqueue) { features.remove(.multiqueue) }
    return features
  }

  var switchesQueuePairs: Bool { true }

  func accept(_ features: VirtioFeatures) {
    accepted = features
    // What only the front-end has, the back-end is not told of.
    var told = features.rawValue & connection.features
    if connection.hasProtocolFeatures { told |= VhostFeature.protocolFeatures }
    featuresAreRefused = !succeeds { () throws(PCIError) in
      try connection.send(.setFeatures, VhostUserNumber(told).bytes)
    }
  }

  /// All ones where the connection has failed. While the device runs the back-end is not asked: the answer would be
  /// waited for on the way of packets.
  var status: VirtioStatus {
    if connection.hasFailed() { return VirtioStatus(rawValue: 0xff) }
    var status = written
    if connection.protocolFeatures.contains(.status), !written.contains(.driverOK) {
      var answer: UInt64 = 0
      guard
        succeeds({ () throws(PCIError) in answer = try connection.number(.getStatus) })
      else { return VirtioStatus(rawValue: 0xff) }
      status = VirtioStatus(rawValue: UInt8(truncatingIfNeeded: answer))
    }
    if featuresAreRefused { status.remove(.featuresOK) }
    return status
  }

  func setStatus(_ status: VirtioStatus) {
    if status.contains(.driverOK) && !written.contains(.driverOK) { startRings() }
    written = status
    guard connection.protocolFeatures.contains(.status) else { return }
    _ = succeeds { () throws(PCIError) in
      try connection.send(.setStatus, VhostUserNumber(UInt64(status.rawValue)).bytes)
    }
  }

  /// Rings are enabled one by one where there are protocol features, and by their kick descriptor elsewhere.
  private func startRings() {
    for ring in rings {
      _ = succeeds { () throws(PCIError) in
        if connection.hasProtocolFeatures {
          try connection.send(.setVringEnable, VringState(ring: ring, value: 1).bytes)
        } else {
          try sendKick(ring)
        }
      }
    }
  }

  private func sendKick(_ ring: Int) throws(PCIError) {
    try connection.send(
      .setVringKick, VhostUserNumber.ring(ring, hasDescriptor: true).bytes,
      descriptors: [device.doorbells[ring]])
  }

  /// Stops all rings: the back-end reads and writes none of them when it has answered.
  func reset() throws(DriverError) {
    let running = rings
    rings = []
    written = []
    featuresAreRefused = false
    try passing { [connection] () throws(PCIError) in
      for ring in running {
        if connection.hasProtocolFeatures {
          try connection.send(.setVringEnable, VringState(ring: ring, value: 0).bytes)
        }
        let answer = try connection.ask(.getVringBase, VringState(ring: ring, value: 0).bytes)
        guard let state = VringState(answer), state.ring == UInt32(ring) else {
          throw connection.broken("its answer to GET_VRING_BASE is for no ring, or another one")
        }
      }
      if connection.protocolFeatures.contains(.status) {
        try connection.send(.setStatus, VhostUserNumber(0).bytes)
      }
    }
  }

  var queueCount: Int { 2 * queuePairs }

  /// The protocol does not say: a back-end refuses a size that it cannot have.
  func maximumSize(ofQueue queue: Int) -> Int {
    queue < min(queueCount, device.doorbells.rings) ? VirtioPCI.maximumQueueSize : 0
  }

  func enable(
    _ queue: Int, _ ring: VirtqueueAddresses, vector: UInt16
  ) throws(DriverError) -> QueueDoorbell {
    guard queue < device.doorbells.rings else {
      throw .unsupported("\(device.name) was given no doorbell for queue \(queue)")
    }
    let call = Int(vector) < device.eventfds.count ? device.eventfds[Int(vector)] : -1
    // Packed: the driver's and the device's index are 0 and both wrap counters 1 (2.8.1; vhost-user, "vring descriptor
    // indices for packed virtqueues").
    let base: UInt32 = accepted.contains(.packedRing) ? 1 << 15 | 1 << 31 : 0
    return try passing { () throws(PCIError) in
      try connection.send(
        .setVringSize, VringState(ring: queue, value: UInt32(ring.size)).bytes)
      try connection.send(.setVringBase, VringState(ring: queue, value: base).bytes)
      try connection.send(
        .setVringAddresses,
        VringAddresses(
          ring: queue, descriptors: ring.descriptorArea, used: ring.deviceArea,
          available: ring.driverArea
        ).bytes)
      try connection.send(
        .setVringCall, VhostUserNumber.ring(queue, hasDescriptor: call >= 0).bytes,
        descriptors: call >= 0 ? [call] : [])
      if connection.hasProtocolFeatures { try sendKick(queue) }
      rings.append(queue)
      return QueueDoorbell(
        window: try device.doorbells.region.window(at: 0, byteCount: 2), queue: UInt16(queue))
    }
  }

  func resetQueue(_ queue: Int) throws(DriverError) {
    throw .unsupported("\(device.name) cannot reset a single queue")
  }

  func setConfigurationVector(_ vector: UInt16) throws(DriverError) {}

  /// Of the back-end where it has one, else of the front-end, with an address of its own.
  func readConfiguration<R>(_ body: (RegisterWindow) -> R) throws(DriverError) -> R {
    var bytes = [UInt8](repeating: 0, count: VirtioNetConfiguration.byteCount)
    if connection.protocolFeatures.contains(.configuration) {
      bytes = try passing { () throws(PCIError) in try askConfiguration(bytes.count) }
    } else {
      bytes.replaceSubrange(0..<6, with: device.localAddress.array)
      bytes[VirtioNetConfiguration.status] = UInt8(VirtioNetConfiguration.linkUp)
    }
    // How many pairs there are the protocol says itself.
    bytes[VirtioNetConfiguration.maximumQueuePairs] = UInt8(truncatingIfNeeded: queuePairs)
    bytes[VirtioNetConfiguration.maximumQueuePairs + 1] = UInt8(queuePairs >> 8)
    return try passing { [configuration] () throws(PCIError) in
      body(try configuration.window(showing: bytes))
    }
  }

  private func askConfiguration(_ byteCount: Int) throws(PCIError) -> [UInt8] {
    let question = VhostUserConfiguration(
      offset: 0, data: [UInt8](repeating: 0, count: byteCount))
    let answer = VhostUserConfiguration(
      try connection.ask(.getConfiguration, question.bytes))
    guard let answer, answer.offset == 0, answer.data.count == byteCount else {
      throw connection.broken("its answer to GET_CONFIG has another size than was asked for")
    }
    return answer.data
  }

  /// MSI-X alone is offered.
  func readInterruptStatus() -> UInt8 { 0 }

  private func succeeds(_ body: () throws(PCIError) -> Void) -> Bool {
    do throws(PCIError) {
      try body()
      return true
    } catch {
      return false
    }
  }

  private func passing<R>(_ body: () throws(PCIError) -> R) throws(DriverError) -> R {
    try DriverError.passing(body)
  }
}

/// Bytes that are shown as registers.
private final class ConfigurationBytes {
  // Invariant: `bytes` are VirtioNetConfiguration.byteCount initialised bytes until deinit.
  private let bytes: UnsafeMutableRawPointer

  init() {
    bytes = .allocate(byteCount: VirtioNetConfiguration.byteCount, alignment: 8)
    bytes.initializeMemory(as: UInt8.self, repeating: 0, count: VirtioNetConfiguration.byteCount)
  }

  deinit { bytes.deallocate() }

  /// Valid until the next call, and as long as this object.
  func window(showing new: [UInt8]) throws(PCIError) -> RegisterWindow {
    let count = VirtioNetConfiguration.byteCount
    UnsafeMutableRawBufferPointer(start: bytes, count: count).copyBytes(from: new.prefix(count))
    return try RegisterRegion(
      bar: 0, byteCount: UInt64(count),
      calls: RegisterCalls(
        context: bytes, load: { _, _, _, _ in .max }, store: { _, _, _, _, _ in }),
      mapped: [.init(offset: 0, byteCount: UInt64(count), address: bytes)]
    ).window(at: 0, byteCount: UInt64(count))
  }
}
