/// Functions that a driver is for, by vendor and device id.
public struct PCIMatch: Hashable, Sendable {
  /// The vendor id, as the PCI SIG gives it.
  public var vendor: UInt16
  /// The device id, as the vendor gives it.
  public var device: UInt16
  /// - Parameters:
  ///   - vendor: the vendor id.
  ///   - device: the device id.
  public init(vendor: UInt16, device: UInt16) {
    self.vendor = vendor
    self.device = device
  }
}

extension PCIMatch: CustomStringConvertible {
  /// As lspci writes it: "8086:10d3".
  public var description: String {
    [vendor, device].map { id in
      let digits = String(id, radix: 16)
      return String(repeating: "0", count: 4 - digits.count) + digits
    }.joined(separator: ":")
  }
}
