import CLinux
import Glibc

/// One range of shared memory behind a descriptor, mapped here: what the device, the host and an instance share.
/// Unmapped and closed when the value goes away. Made and dropped by one thread; the bytes are everyone's.
public struct Arena: ~Copyable, @unchecked Sendable {
  // Invariant: `address` points at `byteCount` mapped bytes of `descriptor` until deinit.
  /// The first byte, in this process.
  public let address: UnsafeMutableRawPointer
  /// Bytes that are mapped.
  public let byteCount: Int
  /// Of the pages that the memory is made of.
  public let pageSize: PageSize
  /// The memory's descriptor, to pass on; the arena closes it. -1 where it has not been kept.
  public let descriptor: Int32

  /// Pages that memory can be made of; raw values in bytes.
  public enum PageSize: Int, Sendable {
    /// 4 KiB.
    case ordinary = 4096
    /// 2 MiB, from the system's pool of huge pages.
    case huge2M = 0x20_0000
    /// 1 GiB, from the system's pool of huge pages.
    case huge1G = 0x4000_0000

    var flags: UInt32 {
      switch self {
      case .ordinary: 0
      case .huge2M: LINUX_MFD_HUGETLB | LINUX_MFD_HUGE_2MB
      case .huge1G: LINUX_MFD_HUGETLB | LINUX_MFD_HUGE_1GB
      }
    }
  }

  /// Makes new memory, all of it present, which nobody can shrink or grow.
  /// - Parameters:
  ///   - byteCount: a multiple of the page size, more than 0.
  ///   - pageSize: of what pages.
  ///   - name: for people, as the kernel lists it.
  /// - Throws: ``MemoryError/badSize(byteCount:pageSize:)``, or ``MemoryError/system(call:errno:)`` where there is not as
  ///   much memory of that kind.
  public init(byteCount: Int, pageSize: PageSize, name: String) throws(MemoryError) {
    guard byteCount > 0, byteCount % pageSize.rawValue == 0 else {
      throw .badSize(byteCount: byteCount, pageSize: pageSize.rawValue)
    }
    let descriptor = linux_memfd_create(
      name, LINUX_MFD_CLOEXEC | LINUX_MFD_ALLOW_SEALING | pageSize.flags)
    guard descriptor >= 0 else { throw .system(call: "memfd_create", errno: -descriptor) }
    do throws(MemoryError) {
      guard ftruncate(descriptor, byteCount) == 0 else {
        throw .system(call: "ftruncate", errno: errno)
      }
      let seals = Int(LINUX_F_SEAL_SHRINK | LINUX_F_SEAL_GROW | LINUX_F_SEAL_SEAL)
      let sealed = linux_fcntl(descriptor, LINUX_F_ADD_SEALS, seals)
      guard sealed >= 0 else { throw .system(call: "sealing memory", errno: -sealed) }
      let call = pageSize == .ordinary ? "mapping memory" : "mapping huge pages"
      address = try Self.map(descriptor, byteCount: byteCount, call: call, writable: true)
    } catch {
      close(descriptor)
      throw error
    }
    self.byteCount = byteCount
    self.pageSize = pageSize
    self.descriptor = descriptor
  }

  /// Maps memory that came from another process. The descriptor is the arena's from now on, also when this throws.
  /// - Parameters:
  ///   - descriptor: memory that its owner can no longer shrink.
  ///   - byteCount: how many bytes were promised; more may be behind the descriptor.
  ///   - writable: false maps it for reading only.
  ///   - address: where to map it, and nowhere else; nil leaves that to the kernel.
  ///   - keepsDescriptor: false closes it once the memory is mapped.
  /// - Throws: ``MemoryError``: it is too small, not sealed, or cannot be mapped there.
  public init(
    adopting descriptor: Int32, byteCount: Int, writable: Bool = true, at address: UInt? = nil,
    keepsDescriptor: Bool = true
  ) throws(MemoryError) {
    do throws(MemoryError) {
      let pageSize = try Self.check(descriptor, holds: byteCount)
      self.address = try Self.map(
        descriptor, byteCount: byteCount, call: "mapping memory", writable: writable, at: address)
      self.pageSize = pageSize
    } catch {
      close(descriptor)
      throw error
    }
    self.byteCount = byteCount
    if !keepsDescriptor { close(descriptor) }
    self.descriptor = keepsDescriptor ? descriptor : -1
  }

  /// Whether memory of another process is as large as was promised and stays so.
  /// - Returns: of what pages it is.
  static func check(_ descriptor: Int32, holds byteCount: Int) throws(MemoryError) -> PageSize {
    var status = stat()
    let result = linux_fstat(descriptor, &status)
    guard result == 0 else { throw .system(call: "fstat", errno: -result) }
    guard byteCount > 0, Int(status.st_size) >= byteCount else {
      throw .tooSmall(byteCount: Int(status.st_size), needed: byteCount)
    }
    let seals = linux_fcntl(descriptor, LINUX_F_GET_SEALS, 0)
    guard seals >= 0, seals & LINUX_F_SEAL_SHRINK != 0 else { throw .notSealed }
    return PageSize(rawValue: Int(status.st_blksize)) ?? .ordinary
  }

  /// New memory in 2 MiB pages where there are any, else in ordinary pages.
  /// - Parameters:
  ///   - byteCount: a multiple of 2 MiB, more than 0.
  ///   - name: for people, as the kernel lists it.
  /// - Throws: as ``init(byteCount:pageSize:name:)`` for ordinary pages.
  public static func withBestPages(
    byteCount: Int, name: String
  ) throws(MemoryError) -> Arena {
    do throws(MemoryError) {
      return try Arena(byteCount: byteCount, pageSize: .huge2M, name: name)
    } catch {
      return try Arena(byteCount: byteCount, pageSize: .ordinary, name: name)
    }
  }

  deinit {
    munmap(address, byteCount)
    if descriptor >= 0 { close(descriptor) }
  }

  private static func map(
    _ descriptor: Int32, byteCount: Int, call: String, writable: Bool,
    at address: UInt? = nil
  ) throws(MemoryError) -> UnsafeMutableRawPointer {
    let protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
    let hint = address.flatMap { UnsafeMutableRawPointer(bitPattern: $0) }
    // Fixed, but never over what is mapped there already.
    let placement = hint == nil ? 0 : LINUX_MAP_FIXED_NOREPLACE
    guard
      let mapped = linux_mmap(
        hint, byteCount, protection, MAP_SHARED | Int32(MAP_POPULATE) | placement, descriptor, 0)
    else { throw .system(call: call, errno: errno) }
    return mapped
  }
}
