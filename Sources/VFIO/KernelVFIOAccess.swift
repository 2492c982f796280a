import CLinux
import Glibc
import PCI

/// A function of this machine as the supervisor holds it: VFIO container, group and device, through the kernel's
/// type 1 IOMMU interface (Linux, Documentation/driver-api/vfio.rst). All three are closed with this object; the
/// kernel then takes the mappings away and leaves the function reset and without bus mastering.
public final class KernelVFIOAccess: DeviceAccess {
  public let name: String
  public let kind = DeviceAccessKind.vfio
  public let group: Int
  public let iovaRanges: [ClosedRange<UInt64>]
  private let descriptors: KernelVFIODescriptors
  private let requests: any DeviceRequests

  public var descriptor: Int32 { descriptors.device }

  /// - Parameter address: in full, such as "0000:04:00.1". The function must be bound to vfio-pci.
  public convenience init(address: String) throws(DeviceOpenError) {
    try self.init(address: address, root: "", requests: KernelRequests())
  }

  /// - Parameter root: stands before /sys and /dev.
  init(address: String, root: String, requests: any DeviceRequests) throws(DeviceOpenError) {
    name = address
    self.requests = requests
    group = try Self.group(of: address, root: root)
    descriptors = try KernelVFIODescriptors(
      address: address, group: group, root: root, requests: requests)
    do throws(PCIError) {
      iovaRanges = try Self.ranges(of: descriptors.container, requests)
    } catch {
      throw .function(error)
    }
  }

  private static func group(of address: String, root: String) throws(DeviceOpenError) -> Int {
    let folder = "\(root)/sys/bus/pci/devices/\(address)"
    guard Glibc.access(folder, F_OK) == 0 else { throw .noSuchFunction(address: address) }
    guard let group = linkTarget("\(folder)/iommu_group").flatMap({ Int($0) }) else {
      throw .noIOMMU(address: address)
    }
    let driver = linkTarget("\(folder)/driver")
    guard let driver, driver.hasPrefix("vfio") || driver.hasSuffix("vfio-pci") else {
      throw .notBound(address: address, driver: driver)
    }
    return group
  }

  /// The last part of what a symbolic link points to.
  private static func linkTarget(_ path: String) -> String? {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = buffer.withUnsafeMutableBytes { readlink(path, $0.baseAddress!, $0.count) }
    guard count > 0 else { return nil }
    return String(decoding: buffer[..<count], as: UTF8.self).split(separator: "/").last
      .map(String.init)
  }

  /// What the IOMMU can translate. Kernels before 5.4 do not say: below the interrupt window every x86 IOMMU can.
  private static func ranges(
    of container: Int32, _ requests: any DeviceRequests
  ) throws(PCIError) -> [ClosedRange<UInt64>] {
    // struct vfio_iommu_type1_info: argsz, flags, iova_pgsizes, cap_offset.
    let start = [UInt8](repeating: 0, count: MemoryLayout<vfio_iommu_type1_info>.size)
    let info = InfoBytes(
      bytes: try requests.growingRequest(
        LINUX_VFIO_IOMMU_GET_INFO, of: container, named: "VFIO IOMMU info", start: start))
    guard info.load32(4) & UInt32(VFIO_IOMMU_INFO_CAPS) != 0,
      let capability = info.capability(
        UInt16(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE), from: info.load32(16))
    else { return [0...0xfedf_ffff] }
    return info.pairs(of: capability).filter { $0.0 <= $0.1 }.map { $0.0...$0.1 }
      .sorted { $0.lowerBound < $1.lowerBound }
  }

  // MARK: DMA

  /// `rights` are those of the device. The range is pinned and counts against the limit of locked memory.
  public func mapDMA(_ memory: DMAMemory, iova: UInt64, rights: DMARights) throws(PCIError) {
    var map = vfio_iommu_type1_dma_map()
    map.argsz = UInt32(MemoryLayout<vfio_iommu_type1_dma_map>.size)
    map.flags = rights.rawValue & DMARights([.read, .write]).rawValue
    map.vaddr = UInt64(UInt(bitPattern: memory.address))
    map.iova = iova
    map.size = memory.byteCount
    let result = requests.request(LINUX_VFIO_IOMMU_MAP_DMA, of: descriptors.container, &map)
    if result >= 0 { return }
    if -result == ENOMEM {
      throw .lockedMemory(byteCount: memory.byteCount, limit: linux_locked_memory_limit())
    }
    throw .system(
      call: "VFIO map of \(memory.byteCount) bytes at IOVA 0x\(String(iova, radix: 16))",
      errno: -result)
  }

  public func unmapDMA(iova: UInt64, byteCount: UInt64) throws(PCIError) {
    var unmap = vfio_iommu_type1_dma_unmap()
    unmap.argsz = UInt32(MemoryLayout<vfio_iommu_type1_dma_unmap>.size)
    unmap.iova = iova
    unmap.size = byteCount
    let call = "VFIO unmap at IOVA 0x\(String(iova, radix: 16))"
    let result = requests.request(LINUX_VFIO_IOMMU_UNMAP_DMA, of: descriptors.container, &unmap)
    guard result >= 0 else { throw .system(call: call, errno: -result) }
    // The kernel says how much it took away; less than asked means that the range was not mapped as we think.
    guard unmap.size == byteCount else { throw .system(call: call, errno: ENOENT) }
  }

  // MARK: Ending

  public func quiesce() throws(PCIError) {
    let function = try KernelVFIOFunction(
      descriptor: descriptors.device, name: name, requests: requests)
    // Off first, as a reset brings the command register back to what it was before.
    let master: UInt32 = 1 << 2
    let command = try function.readConfiguration(at: 0x04, width: .word)
    if command & master != 0 {
      try function.writeConfiguration(command & ~master, at: 0x04, width: .word)
    }
    function.disableAllInterrupts()
    do {
      try function.reset()
    } catch {
      guard case .resetUnsupported = error else { throw error }
    }
    guard try function.readConfiguration(at: 0x04, width: .word) & master == 0 else {
      throw .system(call: "turning bus mastering of \(name) off", errno: EIO)
    }
  }
}
