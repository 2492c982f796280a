import Driver
import Memory
import PCI
import Rings
import Virtio
import VirtioTransports

/// The driver for virtio network devices (virtio 1.2, 5.1), over any ``VirtioTransport``.
public struct VirtioNet: NetworkDriver, ~Copyable {
  public static let name = "virtio-net"
  /// 5.1.6.4: virtio_net_hdr, with the number of buffers.
  public static var receiveHeaderBytes: Int { VirtioNetHeader.byteCount }
  public static let matches = [
    PCIMatch(vendor: VirtioPCI.vendor, device: VirtioPCI.networkDevice),
    PCIMatch(vendor: VirtioPCI.vendor, device: VirtioPCI.transitionalNetworkDevice),
  ]

  public private(set) var interface: NetworkInterface
  private let transport: any VirtioTransport
  private let features: VirtioFeatures
  private let pairs: [Box<VirtioNetQueuePair>]
  private let control: (any CommandQueue)?
  private let interruptKind: InterruptKind?
  private var isRunning = false

  /// What this driver can use. A device may offer more, or less.
  static let wanted: VirtioFeatures = [
    .version1, .accessPlatform, .orderPlatform, .eventIndex, .indirectDescriptors, .ringReset,
    .macAddress, .mtu, .status, .mergeableBuffers, .checksum, .guestChecksum, .hostTSO4,
    .hostTSO6, .guestTSO4, .guestTSO6, .controlQueue, .controlReceive, .controlMACAddress,
    .multiqueue, .notificationCoalescing, .packedRing, .inOrder,
  ]

  /// What users may leave out, and the features that each name stands for; what needs one of them goes with it.
  private static let optional: [(name: String, features: VirtioFeatures)] = [
    ("packed", .packedRing), ("in-order", .inOrder), ("event-index", .eventIndex),
    ("indirect", .indirectDescriptors), ("mergeable", .mergeableBuffers),
    ("checksum", [.checksum, .guestChecksum]),
    ("segmentation", [.hostTSO4, .hostTSO6, .guestTSO4, .guestTSO6]),
  ]
  public static var optionalFeatures: [String] { optional.map(\.name) }

  public init(_ resources: consuming DriverResources) throws(DriverError) {
    try Self.checkOmissions(resources)
    let transport: any VirtioTransport
    if let function = resources.function as? any VirtioFunction {
      transport = try function.makeTransport()
    } else {
      transport = try PCITransport(resources.function)
    }
    let setup: Setup
    do throws(DriverError) {
      setup = try Self.setUp(transport, resources)
    } catch {
      // 2.1.1: bits are only ever added.
      transport.setStatus(transport.status.union(.failed))
      try? transport.reset()
      throw error
    }
    interface = setup.interface
    features = setup.features
    interruptKind = setup.interruptKind
    pairs = setup.pairs
    control = setup.control
    self.transport = transport
  }

  /// What a set-up device comes to.
  private struct Setup: ~Copyable {
    var interface: NetworkInterface
    var features: VirtioFeatures
    var interruptKind: InterruptKind?
    var pairs: [Box<VirtioNetQueuePair>]
    var control: (any CommandQueue)?
  }

  /// The order of 3.1.1, up to but without DRIVER_OK.
  private static func setUp(
    _ transport: any VirtioTransport, _ resources: consuming DriverResources
  ) throws(DriverError) -> Setup {
    try transport.function.turnOffBusMaster()
    try transport.reset()
    transport.setStatus(.acknowledge)
    transport.setStatus([.acknowledge, .driver])
    let features = try negotiate(transport, resources)
    var interface = try readInterface(transport, features)
    let maximumPairs = interface.queuePairs
    interface.queuePairs = max(1, min(resources.queuePairs, maximumPairs))
    // 4.1.5.1.2: virtio knows MSI-X and the interrupt line only.
    let interrupts = try InterruptVectors(
      transport.function, resources.interrupts, allowsMSI: false)
    if interrupts.kind == .msix { try transport.setConfigurationVector(0) }
    var builder = QueueBuilder(
      transport: transport, features: features, interrupts: interrupts,
      maximumPairs: maximumPairs, resources: resources)
    var pairs: [Box<VirtioNetQueuePair>] = []
    for index in 0..<interface.queuePairs {
      let box = Box<VirtioNetQueuePair>()
      box.put(try builder.makePair(index))
      pairs.append(box)
    }
    let control = features.contains(.controlQueue) ? try builder.makeControlQueue() : nil
    return Setup(
      interface: interface, features: features, interruptKind: interrupts.kind, pairs: pairs,
      control: control)
  }

  /// The features that both sides have, each only with what it needs (5.1.3.1).
  private static func negotiate(
    _ transport: any VirtioTransport, _ resources: borrowing DriverResources
  ) throws(DriverError) -> VirtioFeatures {
    let name = resources.function.name
    let offered = transport.deviceFeatures
    if offered.rawValue == .max { throw .deviceGone }
    guard offered.contains(.version1) else {
      throw .unsupported("\(name) is a legacy virtio device: start it with disable-legacy=on")
    }
    if resources.requiresPlatformAccess && !offered.contains(.accessPlatform) {
      throw .unsupported(
        "\(name) would bypass the IOMMU: start it with iommu_platform=on")
    }
    var accepted = offered.intersection(wanted)
    for (name, features) in optional where resources.without.contains(name) {
      accepted.subtract(features)
    }
    for (feature, needs) in VirtioFeatures.prerequisites
    where accepted.contains(feature) && !accepted.contains(needs) {
      if feature == .multiqueue && transport.switchesQueuePairs { continue }
      accepted.remove(feature)
    }
    // A packet of 64 KiB needs many of our buffers.
    if !accepted.contains(.mergeableBuffers) {
      accepted.subtract([.guestTSO4, .guestTSO6])
    }
    if resources.queuePairs <= 1 { accepted.remove(.multiqueue) }
    transport.accept(accepted)
    transport.setStatus([.acknowledge, .driver, .featuresOK])
    guard transport.status.contains(.featuresOK) else {
      throw .unsupported("\(name) refuses the features \(accepted.descriptions)")
    }
    return accepted
  }

  private static func readInterface(
    _ transport: any VirtioTransport, _ features: VirtioFeatures
  ) throws(DriverError) -> NetworkInterface {
    let words = try transport.readConfiguration { window in
      let bytes = (0..<6).map { window.read8(at: VirtioNetConfiguration.macAddress + $0) }
      let hasStatus = features.contains(.status)
      let hasPairs = features.contains(.multiqueue)
      let hasMTU = features.contains(.mtu) && window.byteCount >= 12
      return (
        mac: bytes, status: hasStatus ? window.read16(at: VirtioNetConfiguration.status) : 1,
        pairs: hasPairs ? window.read16(at: VirtioNetConfiguration.maximumQueuePairs) : 1,
        mtu: hasMTU ? window.read16(at: VirtioNetConfiguration.mtu) : 1500
      )
    }
    var address = MACAddress(
      (words.mac[0], words.mac[1], words.mac[2], words.mac[3], words.mac[4], words.mac[5]))
    if !features.contains(.macAddress) { address = .randomLocal() }
    guard !address.isMulticast, !address.isZero else {
      throw .unsupported(
        "\(transport.function.name) has the address \(address), which no device may have")
    }
    // 5.1.4.1: between 68 and 65535. Without mergeable buffers a packet must fit one of ours.
    guard words.mtu >= 68 else {
      throw .unsupported("\(transport.function.name) has an MTU of \(words.mtu)")
    }
    let mtu = features.contains(.mergeableBuffers) ? Int(words.mtu) : min(1500, Int(words.mtu))
    // 5.1.2: the control queue comes after them, and queues have 16-bit numbers.
    guard words.pairs >= 1, words.pairs < 0x8000 else {
      throw .unsupported("\(transport.function.name) has \(words.pairs) queue pairs")
    }
    var offloads: NetworkInterface.Offloads = []
    if features.contains(.checksum) { offloads.insert(.transmitChecksum) }
    if features.contains(.guestChecksum) { offloads.insert(.receiveChecksum) }
    if features.contains(.hostTSO4) { offloads.insert(.transmitTCP4) }
    if features.contains(.hostTSO6) { offloads.insert(.transmitTCP6) }
    if features.contains(.guestTSO4) { offloads.insert(.receiveTCP4) }
    if features.contains(.guestTSO6) { offloads.insert(.receiveTCP6) }
    return NetworkInterface(
      macAddress: address, mtu: mtu, linkIsUp: words.status & VirtioNetConfiguration.linkUp != 0,
      queuePairs: Int(words.pairs), offloads: offloads, features: features.descriptions)
  }

  public mutating func takeQueuePair(_ index: Int) -> VirtioNetQueuePair {
    guard let pair = pairs[index].take() else {
      preconditionFailure("queue pair \(index) was taken before")
    }
    return pair
  }

  public mutating func start() throws(DriverError) {
    do throws(PCIError) {
      try transport.function.setBusMaster(true)
    } catch {
      throw .pci(error)
    }
    transport.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    isRunning = true
    // 5.1.6.5.6.1: until this command only the first pair is used.
    if interface.queuePairs > 1 && !transport.switchesQueuePairs {
      let count = UInt16(interface.queuePairs)
      try command(
        VirtioNetCommand.multiqueueClass, VirtioNetCommand.queuePairsSet,
        [UInt8(truncatingIfNeeded: count), UInt8(count >> 8)], as: "number of queue pairs")
    }
  }

  public mutating func stop() {
    // A device that does not finish its reset may still do DMA: without bus mastering it cannot.
    try? transport.reset()
    try? transport.function.turnOffBusMaster()
    if let interruptKind { try? transport.function.disableInterrupts(interruptKind) }
    isRunning = false
  }

  public mutating func handleConfigurationChange() throws(DriverError) -> Bool {
    let status = transport.status
    if status.rawValue == 0xff { throw .deviceGone }
    if status.contains(.needsReset) { throw .deviceNeedsReset }
    guard features.contains(.status) else { return false }
    let word = try transport.readConfiguration { window in
      window.read16(at: VirtioNetConfiguration.status)
    }
    let isUp = word & VirtioNetConfiguration.linkUp != 0
    if isUp == interface.linkIsUp { return false }
    interface.linkIsUp = isUp
    return true
  }

  public mutating func setPromiscuous(_ on: Bool) throws(DriverError) {
    try need(.controlReceive, for: "promiscuous mode")
    try command(
      VirtioNetCommand.receiveClass, VirtioNetCommand.promiscuous, [on ? 1 : 0],
      as: "promiscuous mode")
  }

  public mutating func setFilter(
    unicast: [MACAddress], multicast: [MACAddress]?
  ) throws(DriverError) {
    try need(.controlReceive, for: "address filters")
    // 5.1.6.5.2.2: two tables, each a 32-bit count and its addresses.
    var data: [UInt8] = []
    for table in [unicast, multicast ?? []] {
      let count = UInt32(table.count)
      data += (0..<4).map { UInt8(truncatingIfNeeded: count >> (8 * $0)) }
      for address in table { data += address.array }
    }
    try command(
      VirtioNetCommand.macClass, VirtioNetCommand.macTableSet, data, as: "address filter")
    try command(
      VirtioNetCommand.receiveClass, VirtioNetCommand.allMulticast, [multicast == nil ? 1 : 0],
      as: "multicast filter")
  }

  public mutating func setReceiveCoalescing(
    packets: UInt32, microseconds: UInt32
  ) throws(DriverError) {
    try need(.notificationCoalescing, for: "interrupt coalescing")
    let data = [packets, microseconds].flatMap { word in
      (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
    }
    try command(
      VirtioNetCommand.coalescingClass, VirtioNetCommand.receiveCoalescingSet, data,
      as: "interrupt coalescing")
  }

  private func need(_ feature: VirtioFeatures, for what: String) throws(DriverError) {
    if !features.contains(feature) {
      throw .unsupported("\(transport.function.name) does not offer \(what)")
    }
  }

  private mutating func command(
    _ commandClass: UInt8, _ command: UInt8, _ data: [UInt8], as name: String
  ) throws(DriverError) {
    guard isRunning, let control else {
      throw .commandFailed("\(name): the device is not running or has no control queue")
    }
    try control.send(commandClass, command, data, as: name)
  }
}

extension PCIFunction {
  func turnOffBusMaster() throws(DriverError) {
    do throws(PCIError) {
      try setBusMaster(false)
    } catch {
      throw .pci(error)
    }
  }
}
