/// Functions that a driver is for, by vendor and device id.
public struct PCIMatch: Hashable, Sendable {
  public var vendor: UInt16
  public var device: UInt16
  public init(vendor: UInt16, device: UInt16) {
    self.vendor = vendor
    self.device = device
  }
}
