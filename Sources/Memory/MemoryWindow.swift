import CLinux
import Glibc

/// A range of addresses that is reserved as a whole and into which memory of several processes is mapped piece by piece,
/// at run time. What is not mapped cannot be touched. One thread maps; the bytes are everyone's.
public struct MemoryWindow: ~Copyable, @unchecked Sendable {
  // Invariant: `address` points at `byteCount` reserved bytes until deinit; what is mapped lies in them.
  /// The first byte, a multiple of 2 MiB.
  public let address: UnsafeMutableRawPointer
  /// Bytes that are reserved.
  public let byteCount: Int

  /// Reserves addresses; no memory is used.
  /// - Parameters:
  ///   - byteCount: a multiple of 2 MiB, more than 0.
  ///   - place: where, and nowhere else, a multiple of 2 MiB; nil leaves that to the kernel.
  /// - Throws: ``MemoryError``: a bad size, or there are not as many addresses.
  public init(byteCount: Int, at place: UInt? = nil) throws(MemoryError) {
    let unit = Arena.PageSize.huge2M.rawValue
    guard byteCount > 0, byteCount % unit == 0, byteCount < 1 << 46 else {
      throw .badSize(byteCount: byteCount, pageSize: unit)
    }
    let hint = place.flatMap { UnsafeMutableRawPointer(bitPattern: $0) }
    // Where the kernel chooses, what is reserved beyond the aligned part is given back.
    let spare = hint == nil ? unit : 0
    let placement = hint == nil ? 0 : LINUX_MAP_FIXED_NOREPLACE
    guard
      let start = linux_mmap(
        hint, byteCount + spare, PROT_NONE, Self.reserved | placement, -1, 0)
    else { throw .system(call: "reserving addresses", errno: errno) }
    let skipped = spare == 0 ? 0 : (unit - Int(bitPattern: start) % unit) % unit
    if skipped > 0 { munmap(start, skipped) }
    if spare > skipped { munmap(start + skipped + byteCount, spare - skipped) }
    address = start + skipped
    self.byteCount = byteCount
  }

  deinit { munmap(address, byteCount) }

  private static let reserved = Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS) | Int32(MAP_NORESERVE)

  /// Maps memory of another process, in place of what was there. The descriptor stays the caller's.
  /// - Parameters:
  ///   - descriptor: memory that its owner can no longer shrink.
  ///   - start: bytes from the memory's start, a multiple of its page size.
  ///   - offset: bytes from the window's start, a multiple of the memory's page size.
  ///   - byteCount: a multiple of the page size.
  ///   - isWritable: false maps it for reading only.
  ///   - isPresent: whether all of it is there afterwards; otherwise pages come as they are touched.
  /// - Throws: ``MemoryError``: it is too small, not sealed, does not lie in the window, or cannot be mapped.
  public func map(
    _ descriptor: Int32, from start: Int = 0, at offset: Int, byteCount: Int,
    isWritable: Bool = true, isPresent: Bool = true
  ) throws(MemoryError) {
    let (end, wraps) = start.addingReportingOverflow(byteCount)
    guard start >= 0, byteCount > 0, !wraps else {
      throw .badSize(byteCount: byteCount, pageSize: Arena.PageSize.ordinary.rawValue)
    }
    let page = try Arena.check(descriptor, holds: end).rawValue
    guard byteCount % page == 0, start % page == 0, offset % page == 0,
      contains(offset, byteCount)
    else {
      throw .badSize(byteCount: byteCount, pageSize: page)
    }
    let flags = MAP_SHARED | Int32(isPresent ? MAP_POPULATE : 0) | Int32(MAP_FIXED)
    let protection = isWritable ? PROT_READ | PROT_WRITE : PROT_READ
    guard
      linux_mmap(address + offset, byteCount, protection, flags, descriptor, off_t(start)) != nil
    else { throw .system(call: "mapping memory", errno: errno) }
  }

  /// Takes mapped memory out; the addresses stay reserved. Nobody may use them any more.
  /// - Parameters:
  ///   - offset: bytes from the window's start.
  ///   - byteCount: a multiple of the page size.
  /// - Throws: ``MemoryError`` where the kernel refuses.
  public func unmap(at offset: Int, byteCount: Int) throws(MemoryError) {
    guard contains(offset, byteCount) else {
      throw .badSize(byteCount: byteCount, pageSize: Arena.PageSize.ordinary.rawValue)
    }
    guard
      linux_mmap(
        address + offset, byteCount, PROT_NONE, Self.reserved | Int32(MAP_FIXED), -1, 0) != nil
    else { throw .system(call: "unmapping memory", errno: errno) }
  }

  private func contains(_ offset: Int, _ byteCount: Int) -> Bool {
    offset >= 0 && byteCount > 0 && offset <= self.byteCount && byteCount <= self.byteCount - offset
  }
}
