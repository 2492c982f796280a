import Glibc
import PCI

/// Why a function cannot be had through the kernel's VFIO. One line each, with the remedy.
public enum DeviceOpenError: Error, Equatable, Sendable {
  case noSuchFunction(address: String)
  /// The kernel has no /dev/vfio/vfio.
  case noVFIO
  /// The function is in no IOMMU group.
  case noIOMMU(address: String)
  /// `driver` is nil where no driver has the function.
  case notBound(address: String, driver: String?)
  /// The node or the container may not be opened by this user.
  case permission(path: String, address: String)
  /// Some process has the group.
  case busy(address: String, group: Int)
  /// Another function of the group has a driver that is not VFIO's.
  case notViable(address: String, group: Int)
  /// The interface lacks what Martlet needs.
  case unsupported(String)
  /// The IOMMU cannot keep one device's interrupts from another's.
  case noInterruptRemapping(address: String)
  case lockedMemory(limit: UInt64)
  case system(call: String, errno: Int32)
  case function(PCIError)
}

extension DeviceOpenError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .noSuchFunction(let address):
      "there is no PCI function \(address): `martlet devices` lists them"
    case .noVFIO: "the kernel has no /dev/vfio/vfio: `modprobe vfio-pci`"
    case .noIOMMU(let address):
      "\(address) is behind no IOMMU: switch VT-d or AMD-Vi on in the firmware and start the kernel with `intel_iommu=on` (Intel) or `amd_iommu=on` (AMD); `martlet doctor` checks it"
    case .notBound(let address, let driver?):
      "\(address) belongs to the kernel's driver \(driver): `martlet bind \(address)`"
    case .notBound(let address, nil):
      "\(address) is not bound to vfio-pci: `martlet bind \(address)`"
    case .permission(let path, let address):
      "no permission for \(path): as root, `martlet bind \(address) --user \(Self.user)`"
    case .busy(let address, let group):
      "\(address) is in use: another process holds /dev/vfio/\(group) (`fuser -v /dev/vfio/\(group)` names it)"
    case .notViable(let address, let group):
      "IOMMU group \(group) of \(address) is not viable: another function in it has a driver of the kernel's; `martlet doctor \(address)` names it"
    case .unsupported(let what): what
    case .noInterruptRemapping(let address):
      "the IOMMU of \(address) does not remap interrupts: a device could raise any interrupt of the machine; switch interrupt remapping (x2APIC) on in the firmware"
    case .lockedMemory(let limit):
      "the locked-memory limit of \(limit) bytes is too low for VFIO: `ulimit -l unlimited` as root, or LimitMEMLOCK=infinity in the systemd unit"
    case .system(let call, let errno): "\(call): \(String(cString: strerror(errno)))"
    case .function(let error): error.description
    }
  }

  private static var user: String {
    guard let entry = getpwuid(geteuid()) else { return "NAME" }
    return String(cString: entry.pointee.pw_name)
  }
}
