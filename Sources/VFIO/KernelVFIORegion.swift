import CLinux
import Glibc
import PCI

/// A region of a VFIO device descriptor, with those parts of it mapped that the kernel lets be mapped.
final class KernelVFIORegion {
  let byteCount: UInt64
  /// Where it begins in the device descriptor.
  let offset: UInt64
  private(set) var mappedAreas: [RegisterRegion.MappedArea] = []

  /// - Parameter maps: whether to map anything; configuration space goes by read and write only.
  init(
    _ index: UInt32, of descriptor: Int32, _ requests: any DeviceRequests, maps: Bool
  ) throws(PCIError) {
    // struct vfio_region_info: argsz, flags, index, cap_offset, size, offset.
    var start = [UInt8](repeating: 0, count: MemoryLayout<vfio_region_info>.size)
    start[8] = UInt8(truncatingIfNeeded: index)
    let info = InfoBytes(
      bytes: try requests.growingRequest(
        LINUX_VFIO_DEVICE_GET_REGION_INFO, of: descriptor, named: "VFIO region info", start: start))
    let flags = info.load32(4)
    offset = info.load64(24)
    let readWrite = UInt32(VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE)
    let size = info.load64(16)
    // A region that can only be read, such as a ROM, is no use to a driver.
    guard flags & readWrite == readWrite, size <= UInt64(Int64.max),
      offset <= UInt64(Int64.max) - size
    else {
      byteCount = 0
      return
    }
    byteCount = size
    guard maps, flags & UInt32(VFIO_REGION_INFO_FLAG_MMAP) != 0 else { return }
    var areas: [(UInt64, UInt64)] = [(0, size)]
    if flags & UInt32(VFIO_REGION_INFO_FLAG_CAPS) != 0,
      let sparse = info.capability(
        UInt16(VFIO_REGION_INFO_CAP_SPARSE_MMAP), from: info.load32(12))
    {
      areas = info.pairs(of: sparse)
    }
    for (start, length) in areas { map(start, length, descriptor) }
  }

  /// What does not lie inside the region or on pages, or cannot be mapped, is reached by read and write.
  private func map(_ start: UInt64, _ length: UInt64, _ descriptor: Int32) {
    let page = UInt64(sysconf(Int32(_SC_PAGESIZE)))
    guard length > 0, start <= byteCount, length <= byteCount - start, start % page == 0,
      offset % page == 0,
      let address = linux_mmap(
        nil, Int(length), PROT_READ | PROT_WRITE, Int32(MAP_SHARED), descriptor,
        off_t(offset + start))
    else { return }
    mappedAreas.append(.init(offset: start, byteCount: length, address: address))
  }

  deinit {
    for area in mappedAreas { munmap(area.address, Int(area.byteCount)) }
  }
}
