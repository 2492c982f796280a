import Driver
import Memory
import PCI
import Rings

/// The driver for the Intel 82574L Gigabit Ethernet controller, from its public datasheet.
public struct E1000e: NetworkDriver, ~Copyable {
  public static let name = "e1000e"
  public static let matches = [PCIMatch(vendor: 0x8086, device: 0x10d3)]
  /// 10.2.5.1: one of a few sizes, for all buffers.
  public static let receiveBufferBytes: Int? = 2048
  public static let deviceStatistics = statisticsRegisters.map(\.name)

  public private(set) var interface: NetworkInterface
  private let controller: Controller
  private let vectors: InterruptVectors
  private var pairs: QueuePairs<E1000eQueuePair>
  private var receiveControl: UInt32
  private var overflow: UInt32 = 0
  private var statistics = [UInt64](repeating: 0, count: statisticsRegisters.count)

  /// Registers that clear when they are read (10.2.7), by xstats names.
  private static let statisticsRegisters: [(name: String, offset: Int)] = [
    ("rx_crc_errors", 0x4000), ("rx_align_errors", 0x4004), ("rx_errors", 0x400c),
    ("rx_missed_errors", 0x4010), ("rx_no_buffer_errors", 0x40a0), ("rx_undersize_errors", 0x40a4),
    ("rx_oversize_errors", 0x40ac), ("rx_good_packets", 0x4074), ("rx_broadcast_packets", 0x4078),
    ("rx_multicast_packets", 0x407c), ("tx_good_packets", 0x4080), ("tx_multicast_packets", 0x40f0),
    ("tx_broadcast_packets", 0x40f4),
  ]
  /// Jumbo frames of 9018 bytes are the longest that a link carries (7.1.3).
  private static let maximumMTU = 9000

  public init(_ resources: consuming DriverResources) throws(DriverError) {
    let mtu = resources.mtu ?? 1500
    guard (68...Self.maximumMTU).contains(mtu) else {
      throw .unsupported(
        "\(resources.function.name) has an MTU of 68 to \(Self.maximumMTU), not \(mtu)")
    }
    let controller = try Controller(resources.function)
    try controller.reset()
    let address = try controller.macAddress()
    controller.setUp(address)
    let offered = try DriverError.passing { () throws(PCIError) in
      try controller.function.interrupts.kind
    }
    // Without MSI-X both queues would share one interrupt, which tells nothing of them.
    let wanted = offered == .msix ? max(1, min(2, resources.queuePairs)) : 1
    let isExtended = controller.setUpReceive(queues: wanted)
    // Packets are spread by their hash, which the legacy descriptors have no place for.
    let count = isExtended ? wanted : 1
    let vectors = try InterruptVectors(resources.function, resources.interrupts.first(count))
    controller.route(vectors, queues: count)
    let size = min(4096, max(8, resources.ringSize))
    let arena = resources.arena
    var zone = resources.takeRings()
    let byteCount = E1000eQueuePair.byteCount(ringSize: size)
    var memory: [DMARange] = []
    for _ in 0..<count {
      guard let range = zone.allocate(byteCount: byteCount, alignment: 128) else {
        throw .outOfRingMemory(needed: byteCount)
      }
      memory.append(range)
    }
    receiveControl = ReceiveControl.broadcast | ReceiveControl.stripChecksum
    if mtu > 1500 { receiveControl |= ReceiveControl.longPackets }
    interface = NetworkInterface(
      macAddress: address, mtu: mtu,
      linkIsUp: controller.read(Register.status) & Status.linkUp != 0, queuePairs: count,
      offloads: [.transmitChecksum, .receiveChecksum, .transmitTCP4, .transmitTCP6],
      features: [isExtended ? "extended-descriptors" : "legacy-descriptors"])
    pairs = QueuePairs(capacity: count)
    for (index, range) in memory.enumerated() {
      pairs.append(
        E1000eQueuePair(
          controller, index: index, memory: range, ringSize: size, arena: arena,
          isExtended: isExtended, maximumFrame: mtu + 18, vectors: vectors))
    }
    self.controller = controller
    self.vectors = vectors
  }

  public mutating func takeQueuePair(_ index: Int) -> E1000eQueuePair { pairs.take(index) }

  public mutating func start() throws(DriverError) {
    let function = controller.function
    try DriverError.passing { () throws(PCIError) in try function.setBusMaster(true) }
    try controller.bringUpLink()
    controller.write(
      TransmitControl.enable | TransmitControl.padShort | TransmitControl.collisions,
      Register.transmitControl)
    controller.write(receiveControl | ReceiveControl.enable, Register.receiveControl)
    if vectors.kind != nil {
      controller.write(
        vectors.kind == .msix ? Cause.other | Cause.link : Cause.link, Register.interruptMaskSet)
    }
  }

  public mutating func stop() {
    _ = readDeviceStatistics()
    // A device that does not finish its reset may still do DMA: without bus mastering it cannot.
    try? controller.reset()
    try? controller.function.setBusMaster(false)
    if let kind = vectors.kind { try? controller.function.disableInterrupts(kind) }
  }

  public mutating func handleConfigurationChange() throws(DriverError) -> Bool {
    // Only what this cares for is cleared: packets' causes are their queues'.
    controller.write(Cause.other | Cause.link, Register.interruptCause)
    let status = controller.read(Register.status)
    if status == .max { throw .deviceGone }
    if vectors.kind == .msix {
      controller.write(Cause.other | Cause.link, Register.interruptMaskSet)
    }
    let wasUp = interface.linkIsUp
    interface.linkIsUp = status & Status.linkUp != 0
    return interface.linkIsUp != wasUp
  }

  public mutating func setPromiscuous(_ on: Bool) throws(DriverError) {
    setReceiveControl(ReceiveControl.promiscuous & ~overflow, on)
  }

  /// Fifteen unicast addresses are told apart; with more, all are received. Multicast addresses share 4096 places, so
  /// that others of the same place are received too.
  public mutating func setFilter(
    unicast: [MACAddress], multicast: [MACAddress]?
  ) throws(DriverError) {
    for index in 1..<16 {
      controller.setReceiveAddress(index, index <= unicast.count ? unicast[index - 1] : nil)
    }
    overflow = unicast.count > 15 ? ReceiveControl.unicastPromiscuous : 0
    let isPromiscuous = receiveControl & ReceiveControl.promiscuous == ReceiveControl.promiscuous
    setReceiveControl(ReceiveControl.unicastPromiscuous, isPromiscuous || overflow != 0)
    var table = [UInt32](repeating: multicast == nil ? .max : 0, count: 128)
    for address in multicast ?? [] {
      let bit = Controller.multicastBit(address)
      table[bit >> 5] |= 1 << UInt32(bit & 31)
    }
    for index in 0..<128 { controller.write(table[index], Register.multicastTable + 4 * index) }
  }

  /// The device counts time only, in units of 256 ns (10.2.4.2).
  /// - Parameter packets: 0.
  public mutating func setReceiveCoalescing(
    packets: UInt32, microseconds: UInt32
  ) throws(DriverError) {
    guard packets == 0, microseconds <= 16_000 else {
      throw .unsupported(
        "\(controller.function.name) holds interrupts back by time only: 0 packets, 0 to 16000 us")
    }
    let interval = microseconds * 1000 / 256
    if vectors.count == 0 { controller.write(interval, Register.lineThrottle) }
    for pair in 0..<interface.queuePairs {
      guard let vector = vectors.vector(ofPair: pair) else { continue }
      controller.write(interval, Register.throttle + 4 * vector)
    }
  }

  public mutating func readDeviceStatistics() -> [UInt64] {
    for (index, register) in Self.statisticsRegisters.enumerated() {
      let value = controller.read(register.offset)
      // A function that is gone has counted nothing.
      if value != .max { statistics[index] += UInt64(value) }
    }
    return statistics
  }

  private mutating func setReceiveControl(_ bits: UInt32, _ on: Bool) {
    receiveControl = on ? receiveControl | bits : receiveControl & ~bits
    let enabled = controller.read(Register.receiveControl) & ReceiveControl.enable
    controller.write(receiveControl | enabled, Register.receiveControl)
  }
}

extension Controller {
  /// What the datasheet asks for after a reset (4.6), addresses without old entries, and all groups.
  func setUp(_ address: MACAddress) {
    write(
      read(Register.extendedControl) | ExtendedControl.reserved | ExtendedControl.driverLoaded,
      Register.extendedControl)
    write(read(Register.pcieControl) | 1 << 22, Register.pcieControl)
    write(8 | 8 << 10 | 6 << 20, Register.interPacketGap)
    setReceiveAddress(0, address)
    for index in 1..<16 { setReceiveAddress(index, nil) }
    for index in 0..<128 { write(.max, Register.multicastTable + 4 * index) }
  }

  /// Descriptor format, checksums, and the spreading over two queues (10.2.5.12 to 10.2.5.14, 7.1.11).
  /// - Returns: whether the device knows the extended format.
  func setUpReceive(queues: Int) -> Bool {
    write(1 << 15, Register.receiveFilter)
    let isExtended = read(Register.receiveFilter) & 1 << 15 != 0
    // IP and transport checksums, and where there is a place for it the hash instead of the packet's sum.
    write(1 << 8 | 1 << 9 | (isExtended ? 1 << 13 : 0), Register.receiveChecksum)
    guard queues > 1, isExtended else { return isExtended }
    for word in 0..<10 {
      // Any key that is not all zeros spreads flows; a random one keeps others from choosing our queue.
      write(UInt32.random(in: 1...UInt32.max), Register.hashKey + 4 * word)
    }
    // Entries alternate: bit 7 of each byte names the queue.
    for word in 0..<32 { write(0x8000_8000, Register.redirection + 4 * word) }
    let kinds: UInt32 = 1 << 16 | 1 << 17 | 1 << 18 | 1 << 20
    write(1 | kinds, Register.multipleQueues)
    return true
  }

  /// Which cause goes to which vector (10.2.4.9); configuration changes to the first.
  func route(_ vectors: InterruptVectors, queues: Int) {
    guard vectors.kind == .msix else { return }
    let valid: UInt32 = 8
    var allocation: UInt32 = 1 << 31 | valid << 16
    var causes: UInt32 = 0
    for queue in 0..<queues {
      let vector = valid | UInt32(vectors.vector(ofPair: queue) ?? 0)
      allocation |= vector << UInt32(4 * queue) | vector << UInt32(8 + 4 * queue)
      causes |= Cause.receive(queue: queue) | Cause.transmit(queue: queue)
    }
    write(allocation, Register.interruptVectors)
    write(causes, Register.interruptAutoClear)
    write(
      read(Register.extendedControl) | ExtendedControl.pendingBitClear, Register.extendedControl)
  }
}
