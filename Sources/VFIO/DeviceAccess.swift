import PCI

/// What the supervisor holds of a device, and the driver host does not: the right to say which memory it may reach.
/// Control path, one thread.
public protocol DeviceAccess: AnyObject {
  /// For messages.
  var name: String { get }

  /// What the driver host gets: a VFIO device descriptor, or a vfio-user or vhost-user socket whose version is negotiated.
  var descriptor: Int32 { get }
  var kind: DeviceAccessKind { get }

  /// Addresses that the device can use, in ascending order.
  var iovaRanges: [ClosedRange<UInt64>] { get }

  /// Lets the device reach `memory` at `iova`. Both are multiples of the page size.
  func mapDMA(_ memory: DMAMemory, iova: UInt64, rights: DMARights) throws(PCIError)
  func unmapDMA(iova: UInt64, byteCount: UInt64) throws(PCIError)

  /// Resets the function if it can be, and turns bus mastering off: it does no more DMA when this returns.
  func quiesce() throws(PCIError)

  /// After a driver host has ended, however it did: as ``quiesce()``, and makes the device ready for another host, which
  /// finds it as it was at first once ``restoreMemory()`` has been called. ``descriptor`` may be another one then. What is to
  /// be mapped no more is taken away in between.
  /// - Throws: where the device is not known to have stopped all DMA.
  func recover() throws(PCIError)

  /// After ``recover()``: what is mapped the device can reach again.
  func restoreMemory() throws(PCIError)
}

extension DeviceAccess {
  public func recover() throws(PCIError) { try quiesce() }
  /// Nothing to do where the device has not lost it.
  public func restoreMemory() throws(PCIError) {}
}

/// How the driver host has to talk to the descriptor that it gets.
public enum DeviceAccessKind: String, Sendable {
  case vfio
  case vfioUser = "vfio-user"
  case vhostUser = "vhost-user"
}

/// Memory behind a descriptor, as mapped in this process.
public struct DMAMemory: @unchecked Sendable {
  // Invariant: `address` points at `byteCount` mapped bytes of `descriptor` from `offset`, until unmapped.
  public var address: UnsafeMutableRawPointer
  public var descriptor: Int32
  public var offset: UInt64
  public var byteCount: UInt64

  public init(
    address: UnsafeMutableRawPointer, descriptor: Int32, offset: UInt64, byteCount: UInt64
  ) {
    self.address = address
    self.descriptor = descriptor
    self.offset = offset
    self.byteCount = byteCount
  }
}

/// What a device may do with memory. The raw values are those of VFIO_DMA_MAP_FLAG_*.
public struct DMARights: OptionSet, Sendable {
  public var rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// The device may read.
  public static let read = DMARights(rawValue: 1)
  /// The device may write.
  public static let write = DMARights(rawValue: 2)
}
