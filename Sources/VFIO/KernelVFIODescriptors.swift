import CLinux
import Glibc
import PCI

/// The three descriptors by which VFIO hands out a function. Closed in the order device, group, container.
final class KernelVFIODescriptors {
  private(set) var container: Int32 = -1
  private var group: Int32 = -1
  private(set) var device: Int32 = -1
  private let requests: any DeviceRequests

  init(
    address: String, group number: Int, root: String, requests: any DeviceRequests
  ) throws(DeviceOpenError) {
    self.requests = requests
    try openContainer(address, root)
    try openGroup(address, number, root)
    try setIOMMU(address)
    device = address.withCString {
      requests.request(
        LINUX_VFIO_GROUP_GET_DEVICE_FD, of: group, UnsafeMutableRawPointer(mutating: $0))
    }
    guard device >= 0 else {
      throw .system(call: "taking \(address) from its VFIO group", errno: -device)
    }
    // Not every kernel opens it close-on-exec.
    _ = linux_fcntl(device, F_SETFD, Int(FD_CLOEXEC))
  }

  deinit {
    for descriptor in [device, group, container] where descriptor >= 0 { close(descriptor) }
  }

  private func openContainer(_ address: String, _ root: String) throws(DeviceOpenError) {
    let path = "\(root)/dev/vfio/vfio"
    container = open(path, O_RDWR | O_CLOEXEC)
    guard container >= 0 else {
      switch errno {
      case ENOENT, ENODEV, ENXIO: throw .noVFIO
      case EACCES, EPERM: throw .permission(path: path, address: address)
      default: throw .system(call: "open \(path)", errno: errno)
      }
    }
    let version = requests.request(LINUX_VFIO_GET_API_VERSION, of: container, value: 0)
    guard version == VFIO_API_VERSION else {
      throw .unsupported("the kernel's VFIO has version \(version), and not \(VFIO_API_VERSION)")
    }
    let type = UInt(VFIO_TYPE1v2_IOMMU)
    guard requests.request(LINUX_VFIO_CHECK_EXTENSION, of: container, value: type) > 0 else {
      throw .unsupported(
        "the kernel's VFIO has no type 1 IOMMU: `modprobe vfio_iommu_type1`; VFIO without an IOMMU is not used"
      )
    }
  }

  private func openGroup(
    _ address: String, _ number: Int, _ root: String
  ) throws(DeviceOpenError) {
    let path = "\(root)/dev/vfio/\(number)"
    group = open(path, O_RDWR | O_CLOEXEC)
    guard group >= 0 else {
      switch errno {
      case ENOENT: throw .notBound(address: address, driver: nil)
      case EACCES, EPERM: throw .permission(path: path, address: address)
      case EBUSY: throw .busy(address: address, group: number)
      default: throw .system(call: "open \(path)", errno: errno)
      }
    }
    var status = vfio_group_status()
    status.argsz = UInt32(MemoryLayout<vfio_group_status>.size)
    let asked = requests.request(LINUX_VFIO_GROUP_GET_STATUS, of: group, &status)
    guard asked >= 0 else { throw .system(call: "VFIO group status", errno: -asked) }
    guard status.flags & UInt32(VFIO_GROUP_FLAGS_VIABLE) != 0 else {
      throw .notViable(address: address, group: number)
    }
    var container = container
    let set = requests.request(LINUX_VFIO_GROUP_SET_CONTAINER, of: group, &container)
    switch -set {
    case ...0: return
    case EBUSY: throw .busy(address: address, group: number)
    case let error: throw .system(call: "VFIO set container", errno: error)
    }
  }

  private func setIOMMU(_ address: String) throws(DeviceOpenError) {
    let type = UInt(VFIO_TYPE1v2_IOMMU)
    let result = requests.request(LINUX_VFIO_SET_IOMMU, of: container, value: type)
    switch -result {
    case ...0: return
    // The kernel's answer where interrupts are not remapped and allow_unsafe_interrupts is off.
    case EPERM: throw .noInterruptRemapping(address: address)
    case ENOMEM: throw .lockedMemory(limit: linux_locked_memory_limit())
    case let error: throw .system(call: "VFIO set IOMMU", errno: error)
    }
  }
}
