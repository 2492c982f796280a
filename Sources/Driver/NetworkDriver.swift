import Memory
import PCI

/// What a driver author writes: one type for the function, which starts and stops it and takes its interrupts, and
/// one for a queue pair, which moves packets.
///
/// The host is generic over this protocol and is specialised for each driver: there is no existential or closure
/// call per packet.
public protocol NetworkDriver: ~Copyable {
  associatedtype QueuePair: NetworkQueuePair & ~Copyable

  /// The driver's name in commands and messages, such as "virtio-net".
  static var name: String { get }
  /// The functions that it drives.
  static var matches: [PCIMatch] { get }

  /// Where a device fills every receive buffer to one fixed size, that size in bytes; nil where it is told each buffer's
  /// length.
  static var receiveBufferBytes: Int? { get }
  /// What the device itself counts, named by DPDK's xstats grammar, such as "rx_crc_errors".
  static var deviceStatistics: [String] { get }

  /// Resets and sets up the function; nothing is received or sent before ``start()``. A driver that throws leaves
  /// the function reset.
  init(_ resources: consuming DriverResources) throws(DriverError)

  /// What was negotiated: address, MTU, offloads, number of queue pairs, link.
  var interface: NetworkInterface { get }

  /// Takes queue pair `index` out of the driver, once for each, before ``start()``.
  mutating func takeQueuePair(_ index: Int) -> QueuePair

  /// Lets the function run. Bus mastering goes on here, after the rings exist.
  mutating func start() throws(DriverError)

  /// Resets the function and turns bus mastering off: when this returns it does no more DMA. Safe to call twice.
  mutating func stop()

  /// The vector that ``DriverResources/interrupts`` names for configuration changes has fired, or the host looks in
  /// now and then: refreshes ``interface``.
  /// - Returns: whether anything changed.
  /// - Throws: ``DriverError/deviceNeedsReset`` and the like; the host then stops the driver.
  mutating func handleConfigurationChange() throws(DriverError) -> Bool

  /// Receives all packets, whatever their destination address.
  mutating func setPromiscuous(_ on: Bool) throws(DriverError)
  /// The addresses to receive besides the function's own and broadcast.
  mutating func setFilter(unicast: [MACAddress], multicast: [MACAddress]) throws(DriverError)
  /// Receive interrupts are held back until so many packets or microseconds, whichever is first.
  mutating func setReceiveCoalescing(packets: UInt32, microseconds: UInt32) throws(DriverError)

  /// The device's own counters since ``start()``, one for each name in ``deviceStatistics``. Control path.
  mutating func readDeviceStatistics() -> [UInt64]
}

extension NetworkDriver where Self: ~Copyable {
  public static var receiveBufferBytes: Int? { nil }
  public static var deviceStatistics: [String] { [] }
  public mutating func readDeviceStatistics() -> [UInt64] { [] }
}

/// One receive and one transmit queue, with the same four verbs in every driver: ``postReceive(_:)``,
/// ``receive(into:)``, ``transmit(_:)``, ``completeTransmit(into:)``. One thread at a time.
///
/// A typed error means that the device broke its contract: the queue is broken and stays so until the driver is
/// made anew; it hands out nothing more and keeps no segment that it has already handed out.
public protocol NetworkQueuePair: ~Copyable {
  /// Lends free segments to the device, from the burst's front; those taken are removed from the burst. A slot's
  /// offset and length name the bytes that the device may fill.
  mutating func postReceive(_ burst: inout Burst) throws(DriverError)

  /// Appends received packets, whole ones only, as slots (``Descriptor``), until none is left or the burst lacks
  /// room. Frames begin at their Ethernet header.
  mutating func receive(into burst: inout Burst) throws(DriverError)

  /// Puts packets from the burst's front on the ring, whole ones only; those taken are removed from the burst.
  /// At most one doorbell. The slots have been checked to lie inside the transmit range.
  mutating func transmit(_ burst: inout Burst) throws(DriverError)

  /// Appends a slot whose tag is the sent packet's, for each packet that the device has done with.
  mutating func completeTransmit(into burst: inout Burst) throws(DriverError)

  /// Segments that could be posted now.
  var receiveRoom: Int { get }

  /// Asks for an interrupt at the next packet received (and, where `transmit`, the next one sent).
  /// - Returns: whether the caller may sleep: false when something has arrived meanwhile.
  mutating func armInterrupts(transmit: Bool) -> Bool
  mutating func disarmInterrupts()

  /// Everything that the device held is handed back, as slots (receive segments) and as tags (packets). Only after
  /// the driver's `stop()`. Call until neither burst grows.
  mutating func takeBack(segments: inout Burst, packets: inout Burst)

  var statistics: QueueStatistics { get }
}

/// What a driver is given. The memory is mapped for the device already.
public struct DriverResources: ~Copyable {
  public let function: any PCIFunction
  /// For rings and tables, private to the host and the device.
  public var rings: DMAZone
  /// Where received packets go, addressed by ``Descriptor/segment`` from the arena's start: device-writable.
  /// The arena's receive part may begin anywhere in it; segments that are posted lie there.
  public let arena: DMARange
  /// Queue pairs wanted; the driver may have fewer.
  public let queuePairs: Int
  /// Ring size wanted, in descriptors: a power of two.
  public let ringSize: Int
  /// Bytes of payload wanted behind the Ethernet header, where the device does not say; nil for what is usual.
  public let mtu: Int?
  public let interrupts: InterruptPlan
  /// The function sits behind an IOMMU, which a device must not go around.
  public let requiresPlatformAccess: Bool

  public init(
    function: any PCIFunction, rings: consuming DMAZone, arena: DMARange, queuePairs: Int = 1,
    ringSize: Int = 256, mtu: Int? = nil, interrupts: InterruptPlan = .none,
    requiresPlatformAccess: Bool = false
  ) {
    self.function = function
    self.rings = rings
    self.arena = arena
    self.queuePairs = queuePairs
    self.ringSize = ringSize
    self.mtu = mtu
    self.interrupts = interrupts
    self.requiresPlatformAccess = requiresPlatformAccess
  }

  public consuming func takeRings() -> DMAZone { rings }
}

/// The eventfds that the host waits on. A driver connects them to the function's vectors as the function allows;
/// where vectors are few, one signals for several.
public struct InterruptPlan: Sendable {
  /// Configuration changes; -1 for none.
  public var configuration: Int32
  /// One for each queue pair.
  public var queues: [Int32]

  public init(configuration: Int32, queues: [Int32]) {
    self.configuration = configuration
    self.queues = queues
  }

  /// The same for fewer queue pairs.
  public func first(_ pairs: Int) -> InterruptPlan {
    InterruptPlan(configuration: configuration, queues: Array(queues.prefix(pairs)))
  }

  /// Polling only.
  public static let none = InterruptPlan(configuration: -1, queues: [])
}
