import Memory
import PCI

/// A driver whose device does not complete transport checksums, with them completed by this machine, packet by packet as
/// they go on the ring (``InternetChecksum``): its interface offers ``NetworkInterface/Offloads/transmitChecksum``. Where
/// the device does it, packets go past.
public struct SoftwareChecksumDriver<D: NetworkDriver & ~Copyable>: NetworkDriver, ~Copyable {
  public static var name: String { D.name }
  public static var matches: [PCIMatch] { D.matches }
  public static var receiveBufferBytes: Int? { D.receiveBufferBytes }
  public static var receiveHeaderBytes: Int { D.receiveHeaderBytes }
  public static var deviceStatistics: [String] { D.deviceStatistics }
  public static var optionalFeatures: [String] { D.optionalFeatures }

  private var driver: D
  private let arena: DMARange

  public init(_ resources: consuming DriverResources) throws(DriverError) {
    arena = resources.arena
    driver = try D(resources)
  }

  /// Around a driver that has been made.
  /// - Parameters:
  ///   - driver: is this one's from now on.
  ///   - arena: as it was told.
  public init(_ driver: consuming D, arena: DMARange) {
    self.driver = driver
    self.arena = arena
  }

  public var interface: NetworkInterface {
    var interface = driver.interface
    interface.offloads.insert(.transmitChecksum)
    return interface
  }

  public mutating func takeQueuePair(
    _ index: Int
  ) -> TransformingQueuePair<D.QueuePair, InternetChecksum> {
    TransformingQueuePair(
      driver.takeQueuePair(index), InternetChecksum(), arena: arena,
      isNeeded: !driver.interface.offloads.contains(.transmitChecksum))
  }

  public mutating func start() throws(DriverError) { try driver.start() }
  public mutating func stop() { driver.stop() }
  public mutating func handleConfigurationChange() throws(DriverError) -> Bool {
    try driver.handleConfigurationChange()
  }
  public mutating func setPromiscuous(_ on: Bool) throws(DriverError) {
    try driver.setPromiscuous(on)
  }
  public mutating func setFilter(
    unicast: [MACAddress], multicast: [MACAddress]?
  ) throws(DriverError) {
    try driver.setFilter(unicast: unicast, multicast: multicast)
  }
  public mutating func setReceiveCoalescing(packets: UInt32, microseconds: UInt32)
    throws(DriverError)
  {
    try driver.setReceiveCoalescing(packets: packets, microseconds: microseconds)
  }
  public mutating func readDeviceStatistics() -> [UInt64] { driver.readDeviceStatistics() }
}
