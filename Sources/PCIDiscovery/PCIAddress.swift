/// Where a PCI function sits: domain, bus, device and function.
public struct PCIAddress: Hashable, Sendable {
  public var domain: UInt32
  public var bus: UInt8
  /// 0 to 31.
  public var device: UInt8
  /// 0 to 7.
  public var function: UInt8

  public init(domain: UInt32 = 0, bus: UInt8, device: UInt8, function: UInt8) {
    self.domain = domain
    self.bus = bus
    self.device = device
    self.function = function
  }
}

extension PCIAddress: LosslessStringConvertible {
  /// Takes "0000:04:00.1" and, in domain 0, "04:00.1".
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2 || parts.count == 3 else { return nil }
    let last = parts[parts.count - 1].split(separator: ".", omittingEmptySubsequences: false)
    guard last.count == 2,
      // A virtual device of a hypervisor can have a domain of five digits and more.
      let domain = parts.count == 2 ? 0 : Self.hexadecimal(parts[0], digits: 4...8),
      let bus = Self.hexadecimal(parts[parts.count - 2], digits: 1...2),
      let device = Self.hexadecimal(last[0], digits: 1...2), device < 32,
      let function = Self.hexadecimal(last[1], digits: 1...1), function < 8
    else { return nil }
    self.init(
      domain: domain, bus: UInt8(bus), device: UInt8(device), function: UInt8(function))
  }

  private static func hexadecimal(_ text: Substring, digits: ClosedRange<Int>) -> UInt32? {
    // UInt32's own initialiser takes a sign.
    guard digits.contains(text.utf8.count), text.allSatisfy(\.isHexDigit) else { return nil }
    return UInt32(text, radix: 16)
  }

  /// In full, as sysfs writes it.
  public var description: String {
    func padded(_ value: UInt32, _ width: Int) -> String {
      let digits = String(value, radix: 16)
      return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
    return
      "\(padded(domain, 4)):\(padded(UInt32(bus), 2)):\(padded(UInt32(device), 2)).\(function)"
  }
}

extension PCIAddress: Comparable {
  public static func < (a: PCIAddress, b: PCIAddress) -> Bool {
    (a.domain, a.bus, a.device, a.function) < (b.domain, b.bus, b.device, b.function)
  }
}
