/// Functions that a driver is for, by vendor and device id.
public struct PCIMatch: Hashable, Sendable {
  public var vendor: UInt16
  public var device: UInt16
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
