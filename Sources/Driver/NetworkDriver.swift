import Memory
import PCI

/// What a driver author writes: one type for the function, which starts and stops it and takes its interrupts, and
/// one for a queue pair, which moves packets.
///
/// The host is generic over this protocol and is specialised for each driver: there is no existential or closure
/// call per packet. One thread calls all of it; it is the control path, which may allocate and wait.
///
/// See <doc:WritingANetworkDriver>.
public protocol NetworkDriver: ~Copyable {
  /// A receive and a transmit queue: the data path.
  associatedtype QueuePair: NetworkQueuePair & ~Copyable

  /// The driver's name in commands and messages, such as "virtio-net".
  static var name: String { get }
  /// The functions that it drives, by vendor and device id. A host asks no other.
  static var matches: [PCIMatch] { get }

  /// Where a device fills every receive buffer to one fixed size, that size in bytes; nil where it is told each buffer's
  /// length.
  static var receiveBufferBytes: Int? { get }
  /// Bytes that the device writes before each received frame, of a buffer's own: 0 for most.
  static var receiveHeaderBytes: Int { get }
  /// What it uses where the device has it, and can be told to leave alone (``DriverResources/without``): names such as
  /// "packed".
  static var optionalFeatures: [String] { get }
  /// What the device itself counts, named by DPDK's xstats grammar, such as "rx_crc_errors".
  static var deviceStatistics: [String] { get }

  /// Resets and sets up the function; nothing is received or sent before ``start()``.
  /// - Parameter resources: the function, memory that is mapped for it, and what is wanted of it.
  /// - Throws: why the function cannot be driven; it is left reset.
  init(_ resources: consuming DriverResources) throws(DriverError)

  /// What was negotiated: address, MTU, offloads, number of queue pairs, link. Only ``handleConfigurationChange()``
  /// changes it.
  var interface: NetworkInterface { get }

  /// Takes a queue pair out of the driver, once for each, before ``start()``. It may go to a thread of its own.
  /// - Parameter index: 0 to ``NetworkInterface/queuePairs`` - 1; anything else, or a second time, traps.
  mutating func takeQueuePair(_ index: Int) -> QueuePair

  /// Lets the function run. Bus mastering goes on here, after the rings exist.
  /// - Throws: why it does not; the caller then calls ``stop()``.
  mutating func start() throws(DriverError)

  /// Resets the function and turns bus mastering off: when this returns it does no more DMA. A function that is gone
  /// is stopped. Safe to call twice.
  mutating func stop()

  /// The vector that ``DriverResources/interrupts`` names for configuration changes has fired, or the host looks in
  /// now and then: refreshes ``interface``.
  /// - Returns: whether anything changed.
  /// - Throws: ``DriverError/deviceNeedsReset`` and the like; the host then stops the driver.
  mutating func handleConfigurationChange() throws(DriverError) -> Bool

  /// Receives all packets, whatever their destination address, or no longer.
  /// - Throws: ``DriverError/unsupported(_:)`` where the device cannot, ``DriverError/commandFailed(_:)`` where it
  ///   refuses.
  mutating func setPromiscuous(_ on: Bool) throws(DriverError)
  /// The addresses to receive besides the function's own and broadcast, in place of those of the call before; before the
  /// first one all groups are received.
  /// A device with few places may receive more than was asked for, never less. What is set here is in force again when
  /// ``setPromiscuous(_:)`` is turned off.
  /// - Parameters:
  ///   - unicast: stations.
  ///   - multicast: groups; nil for all that there are.
  /// - Throws: as ``setPromiscuous(_:)``.
  mutating func setFilter(unicast: [MACAddress], multicast: [MACAddress]?) throws(DriverError)
  /// Receive interrupts are held back until so many packets or microseconds, whichever is first; 0 is no limit of that
  /// kind.
  /// - Throws: ``DriverError/unsupported(_:)`` with the values that the device knows.
  mutating func setReceiveCoalescing(packets: UInt32, microseconds: UInt32) throws(DriverError)

  /// The device's own counters since ``start()``, one for each name in ``deviceStatistics``. Control path.
  mutating func readDeviceStatistics() -> [UInt64]
}

extension NetworkDriver where Self: ~Copyable {
  /// nil: the device is told each buffer's length.
  public static var receiveBufferBytes: Int? { nil }
  public static var receiveHeaderBytes: Int { 0 }
  /// None.
  public static var optionalFeatures: [String] { [] }
  /// None: the device counts nothing.
  public static var deviceStatistics: [String] { [] }
  /// As many counters as ``deviceStatistics`` has names: none.
  public mutating func readDeviceStatistics() -> [UInt64] { [] }

  /// Refuses to leave out what the driver does not know.
  /// - Throws: ``DriverError/unsupported(_:)`` with the names that it knows.
  public static func checkOmissions(_ resources: borrowing DriverResources) throws(DriverError) {
    for feature in resources.without where !optionalFeatures.contains(feature) {
      let known = optionalFeatures.isEmpty ? "nothing" : optionalFeatures.joined(separator: ", ")
      throw .unsupported("\(name) cannot do without \(feature): it can leave out \(known)")
    }
  }
}

/// One receive and one transmit queue, with the same four verbs in every driver: ``postReceive(_:)``,
/// ``receive(into:)``, ``transmit(_:)``, ``completeTransmit(into:)``. One thread at a time; no verb allocates, waits or
/// locks, nor makes a system call where registers are mapped.
///
/// A typed error means that the device broke its contract: the queue is broken and stays so until the driver is
/// made anew; it hands out nothing more and keeps no segment that it has already handed out.
public protocol NetworkQueuePair: ~Copyable, SendableMetatype {
  /// Lends free segments to the device, from the burst's front; those taken are removed from the burst. A slot's
  /// offset and length name the bytes that the device may fill. At most one doorbell.
  /// - Parameter burst: slots whose segments are the caller's; all of one size.
  /// - Throws: ``DriverError/ring(queue:_:)`` where the queue is broken.
  mutating func postReceive(_ burst: inout Burst) throws(DriverError)

  /// Appends received packets, whole ones only, as slots (``/Memory/Descriptor``), until none is left or the burst has
  /// room for fewer than ``/Memory/Descriptor/maximumSlots`` more. Frames begin at their Ethernet header, without
  /// preamble or check sequence. Each slot's segment was lent by ``postReceive(_:)`` and is the caller's again.
  /// - Throws: ``DriverError/ring(queue:_:)`` where the device broke the ring's contract. Packets that are merely bad
  ///   are counted, and their segments go back to the device.
  mutating func receive(into burst: inout Burst) throws(DriverError)

  /// Puts packets from the burst's front on the ring, whole ones only; those taken are removed from the burst.
  /// At most one doorbell. The slots have been checked to lie inside the transmit range; what their metadata asks for
  /// has not. A packet that cannot be sent as it is is counted and comes back by ``completeTransmit(into:)``.
  /// - Throws: ``DriverError/ring(queue:_:)`` where the queue is broken.
  mutating func transmit(_ burst: inout Burst) throws(DriverError)

  /// What ``transmit(_:)`` would do with a packet now, so that a caller can do its last work on those alone that leave
  /// (``TransformingQueuePair``). Packets that are admitted one after the other, and then passed together in one burst, are
  /// all put on the ring.
  /// - Parameters:
  ///   - burst: holds the packet, whole.
  ///   - first: its first slot.
  ///   - last: its last one.
  ///   - places: how much of the ring the packets before it will take; what this one takes at most is added where it is
  ///     admitted. The unit is the driver's own; a burst begins with 0.
  mutating func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission

  /// Appends a slot whose tag is the packet's, for each packet that the device has done with, until the burst is full.
  /// Its bytes are the sender's again.
  /// - Throws: ``DriverError/ring(queue:_:)`` where the device broke the ring's contract.
  mutating func completeTransmit(into burst: inout Burst) throws(DriverError)

  /// Segments that could be posted now.
  var receiveRoom: Int { get }

  /// Asks for an interrupt at the next packet received.
  /// - Parameter transmit: whether for the next one sent too.
  /// - Returns: whether the caller may sleep: false when something has arrived meanwhile.
  mutating func armInterrupts(transmit: Bool) -> Bool
  /// No interrupts until ``armInterrupts(transmit:)``: the caller polls. One that is under way may still come.
  mutating func disarmInterrupts()

  /// Hands back everything that the device held, each segment and each packet once. Only after the driver's
  /// ``NetworkDriver/stop()``. Call until neither burst grows.
  /// - Parameters:
  ///   - segments: gets the receive segments, as slots.
  ///   - packets: gets a slot with the tag of each packet that was not completed.
  mutating func takeBack(segments: inout Burst, packets: inout Burst)

  /// Counters since the pair was made.
  var statistics: QueueStatistics { get }
}

/// What a queue pair would do with a packet (``NetworkQueuePair/admission(of:from:through:behind:)``).
@frozen
public enum TransmitAdmission: Sendable {
  /// It would go on the ring.
  case admitted
  /// It would be counted and completed without being sent.
  case refused
  /// It would stay where it is: the ring is full, or broken.
  case noRoom
}

/// What a driver is given. The memory is mapped for the device already, and outlives the driver.
public struct DriverResources: ~Copyable {
  /// The function to drive; nobody else uses it.
  public let function: any PCIFunction
  /// For rings and tables, private to the host and the device.
  public var rings: DMAZone
  /// Where packets are, addressed by ``/Memory/Descriptor/position`` from the arena's start. The segments that are
  /// posted lie in its receive part, the only part that the device may write.
  public let arena: DMARange
  /// Queue pairs wanted; the driver may have fewer.
  public let queuePairs: Int
  /// Ring size wanted, in descriptors: a power of two.
  public let ringSize: Int
  /// Bytes of payload wanted behind the Ethernet header, where the device does not say; nil for what is usual.
  public let mtu: Int?
  /// Features to leave alone even where the device has them, for tests and comparisons: of
  /// ``NetworkDriver/optionalFeatures``.
  public let without: [String]
  /// The eventfds to connect to the function's vectors.
  public let interrupts: InterruptPlan
  /// The function sits behind an IOMMU, which a device must not go around.
  public let requiresPlatformAccess: Bool

  /// - Parameters:
  ///   - function: the function to drive.
  ///   - rings: device-readable and -writable memory for rings.
  ///   - arena: the arena, as the host and the device see it.
  ///   - queuePairs: at least 1.
  ///   - ringSize: descriptors, a power of two.
  ///   - mtu: bytes behind the Ethernet header, or nil.
  ///   - without: features to leave alone.
  ///   - interrupts: ``InterruptPlan/none`` where the host only polls.
  ///   - requiresPlatformAccess: whether there is an IOMMU.
  public init(
    function: any PCIFunction, rings: consuming DMAZone, arena: DMARange, queuePairs: Int = 1,
    ringSize: Int = 256, mtu: Int? = nil, without: [String] = [],
    interrupts: InterruptPlan = .none, requiresPlatformAccess: Bool = false
  ) {
    self.function = function
    self.rings = rings
    self.arena = arena
    self.queuePairs = queuePairs
    self.ringSize = ringSize
    self.mtu = mtu
    self.without = without
    self.interrupts = interrupts
    self.requiresPlatformAccess = requiresPlatformAccess
  }

  /// The zone, for a driver that keeps it; read the other properties before.
  public consuming func takeRings() -> DMAZone { rings }
}

/// The eventfds that the host waits on. A driver connects them to the function's vectors as the function allows;
/// where vectors are few, one signals for several.
public struct InterruptPlan: Sendable {
  /// Configuration changes; -1 for none.
  public var configuration: Int32
  /// One for each queue pair.
  public var queues: [Int32]

  /// - Parameters:
  ///   - configuration: an eventfd, or -1.
  ///   - queues: an eventfd for each queue pair; none where the host polls them. They stay the caller's.
  public init(configuration: Int32, queues: [Int32]) {
    self.configuration = configuration
    self.queues = queues
  }

  /// The same for fewer queue pairs.
  /// - Parameter pairs: how many of the first ones stay.
  public func first(_ pairs: Int) -> InterruptPlan {
    InterruptPlan(configuration: configuration, queues: Array(queues.prefix(pairs)))
  }

  /// Polling only.
  public static let none = InterruptPlan(configuration: -1, queues: [])
}
