import CLinux
import EmulatedPCI
import Glibc
import VFIOUserMessages

/// The memory that a client, or a front-end, gave its device: mapped here where it came with a descriptor, reached by messages where it
/// did not. Holds no descriptors.
public final class DMATable {
  private struct Mapping {
    /// Where this process sees it: whole pages of the file, and a guard against the file getting shorter.
    var base: UnsafeMutableRawPointer?
    var length: Int
    var guardSlot: Int32
  }

  private let iommu: CheckedIOMMU
  private var mappings: [UInt64: Mapping] = [:]

  public init(_ iommu: CheckedIOMMU) { self.iommu = iommu }

  deinit { removeAll() }

  public var count: Int { mappings.count }

  /// Whether memory behind a mapping has gone: its file has become shorter.
  public var hasLostMemory: Bool {
    mappings.values.contains { linux_bus_guard_is_replaced($0.guardSlot) != 0 }
  }

  /// - Parameter descriptor: of the memory's file, or -1; stays the caller's.
  /// - Returns: 0 or an errno.
  public func add(_ message: DMAMapMessage, descriptor: Int32) -> Int32 {
    let page = UInt64(sysconf(Int32(_SC_PAGESIZE)))
    let known = DMAMapMessage.readable | DMAMapMessage.writable
    guard message.flags & known != 0, message.flags & ~known == 0, message.size > 0,
      message.address % page == 0, message.size % page == 0, message.offset % page == 0,
      !message.address.addingReportingOverflow(message.size - 1).overflow
    else { return EINVAL }
    guard mappings.count < Int(LINUX_BUS_GUARD_RANGES) else { return ENOSPC }
    var mapping = Mapping(base: nil, length: 0, guardSlot: -1)
    var address: UnsafeMutableRawPointer?
    if descriptor >= 0 {
      let error = map(message, descriptor, &mapping, &address)
      if error != 0 { return error }
    }
    var rights: CheckedIOMMU.Rights = []
    if message.flags & DMAMapMessage.readable != 0 { rights.insert(.read) }
    if message.flags & DMAMapMessage.writable != 0 { rights.insert(.write) }
    do {
      try iommu.map(
        iova: message.address, byteCount: message.size, address: address, rights: rights)
    } catch {
      release(mapping)
      switch error {
      case .overlaps: return EEXIST
      case .tooMany: return ENOSPC
      case .wraps, .empty: return EINVAL
      }
    }
    mappings[message.address] = mapping
    return 0
  }

  private func map(
    _ message: DMAMapMessage, _ descriptor: Int32, _ mapping: inout Mapping,
    _ address: inout UnsafeMutableRawPointer?
  ) -> Int32 {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { return errno }
    let (end, wraps) = message.offset.addingReportingOverflow(message.size)
    guard status.st_mode & S_IFMT == S_IFREG, !wraps, status.st_size >= 0,
      end <= UInt64(status.st_size), end <= UInt64(Int.max / 2)
    else { return EINVAL }
    // A file on hugetlbfs is mapped in its own, larger pages.
    let unit = UInt64(max(4096, status.st_blksize))
    let isHuge = unit >= 1 << 21
    let start = isHuge ? message.offset / unit * unit : message.offset
    let stop = isHuge ? (end + unit - 1) / unit * unit : end
    let protection =
      message.flags & DMAMapMessage.writable != 0 ? PROT_READ | PROT_WRITE : PROT_READ
    let length = Int(stop - start)
    guard
      let base = linux_mmap(
        nil, length, protection, Int32(MAP_SHARED | MAP_NORESERVE), descriptor, off_t(start))
    else { return errno }
    let slot = linux_bus_guard_add(base, length)
    guard slot >= 0 else {
      munmap(base, length)
      return ENOSPC
    }
    mapping.base = base
    mapping.length = length
    mapping.guardSlot = slot
    address = base + Int(message.offset - start)
    return 0
  }

  /// - Returns: 0 or an errno.
  public func remove(_ message: DMAUnmapMessage) -> Int32 {
    if message.flags & DMAUnmapMessage.all != 0 {
      guard message.flags == DMAUnmapMessage.all, message.address == 0, message.size == 0 else {
        return EINVAL
      }
      removeAll()
      return 0
    }
    // Dirty pages are not tracked: there is no migration.
    guard message.flags == 0, message.size > 0 else { return EINVAL }
    guard let removed = iommu.unmap(iova: message.address, byteCount: message.size) else {
      return EINVAL
    }
    if removed.isEmpty { return ENOENT }
    for entry in removed { release(mappings.removeValue(forKey: entry.iova)) }
    return 0
  }

  public func removeAll() {
    iommu.unmapAll()
    for mapping in mappings.values { release(mapping) }
    mappings = [:]
  }

  private func release(_ mapping: Mapping?) {
    guard let mapping, let base = mapping.base else { return }
    _ = linux_bus_guard_remove(mapping.guardSlot)
    munmap(base, mapping.length)
  }
}
