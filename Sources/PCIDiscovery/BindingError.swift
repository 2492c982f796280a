import Glibc

/// Why a function was not bound or given back. One line each, with the remedy.
public enum BindingError: Error, Equatable, Sendable {
  case inUse(PCIAddress, [FunctionUse])
  case isBridge(PCIAddress)
  case noIOMMU(PCIAddress)
  /// The driver to bind to is not in the kernel.
  case noDriver(String)
  case permission(path: String)
  case system(step: String, errno: Int32)
  /// The kernel did as it was told and yet another driver, or none, has the function.
  case notTaken(PCIAddress, by: String, driver: String?)
  /// Asked to give back what VFIO does not have.
  case notBound(PCIAddress, driver: String?)
  /// The node of the group did not appear.
  case noNode(group: Int)
}

extension BindingError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .inUse(let address, let uses):
      "\(address) is in use: \(uses.map(\.description).joined(separator: "; ")); free it, or add --force to take it all the same"
    case .isBridge(let address): "\(address) is a bridge, which cannot be taken"
    case .noIOMMU(let address):
      "\(address) is behind no IOMMU: switch VT-d or AMD-Vi on in the firmware and start the kernel with `intel_iommu=on` (Intel) or `amd_iommu=on` (AMD); `martlet doctor` checks it"
    case .noDriver(let driver): "the kernel has no driver \(driver): `modprobe \(driver)`"
    case .permission(let path): "no permission to write \(path): run it as root"
    case .system(let step, let errno): "\(step): \(String(cString: strerror(errno)))"
    case .notTaken(let address, let wanted, let driver):
      "\(wanted) did not take \(address), which now belongs to \(driver ?? "no driver"): `dmesg | grep \(address)` says why"
    case .notBound(let address, let driver):
      "\(address) is not bound to vfio-pci but to \(driver ?? "no driver"): there is nothing to give back"
    case .noNode(let group):
      "/dev/vfio/\(group) did not appear: is /dev a devtmpfs, or udev running?"
    }
  }
}
