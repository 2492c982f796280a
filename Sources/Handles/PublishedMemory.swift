import CLinux
import Glibc
import Memory

/// Memory that its maker writes and that nobody else can ever write: its only writable mapping is made before
/// F_SEAL_FUTURE_WRITE is set (fcntl(2), File Sealing). For capture, and for whatever else is only to be read.
/// Made and dropped by one thread; the bytes are everyone's.
public struct PublishedMemory: ~Copyable, @unchecked Sendable {
  // Invariant: `address` points at `byteCount` mapped bytes until deinit.
  /// The first byte, in this process.
  public let address: UnsafeMutableRawPointer
  /// Bytes that are mapped.
  public let byteCount: Int
  /// Whether its pages can be taken from readers, and from here: see ``keepContents()``.
  public let isRevocable: Bool
  /// For readers: no writable mapping can be made by it, also after it was opened anew. Closed with this value.
  public let readerDescriptor: Int32
  /// Open for writing, though no byte can be written by it: it can cut a revocable memory.
  let descriptor: Int32

  /// - Parameters:
  ///   - byteCount: a multiple of the page size, more than 0.
  ///   - pageSize: of what pages.
  ///   - isRevocable: whether the end of its handle takes its pages from the receiver.
  ///   - name: for people, as the kernel lists it.
  /// - Throws: ``HandleError/system(call:errno:)``; /proc has to be there.
  public init(
    byteCount: Int, pageSize: Arena.PageSize = .ordinary, isRevocable: Bool = false, name: String
  ) throws(HandleError) {
    guard byteCount > 0, byteCount % pageSize.rawValue == 0 else { throw .refused(.unaligned) }
    let huge: UInt32 =
      switch pageSize {
      case .ordinary: 0
      case .huge2M: LINUX_MFD_HUGETLB | LINUX_MFD_HUGE_2MB
      case .huge1G: LINUX_MFD_HUGETLB | LINUX_MFD_HUGE_1GB
      }
    let descriptor = linux_memfd_create(name, LINUX_MFD_CLOEXEC | LINUX_MFD_ALLOW_SEALING | huge)
    guard descriptor >= 0 else { throw .system(call: "memfd_create", errno: -descriptor) }
    var reader: Int32 = -1
    do throws(HandleError) {
      // Other users cannot open it anew, not even to cut it short.
      guard fchmod(descriptor, 0o400) == 0, ftruncate(descriptor, byteCount) == 0 else {
        throw .system(call: "ftruncate", errno: errno)
      }
      reader = open("/proc/self/fd/\(descriptor)", O_RDONLY | O_CLOEXEC)
      guard reader >= 0 else { throw .system(call: "opening memory for reading", errno: errno) }
      address = try Self.mapAndSeal(descriptor, byteCount, isRevocable)
    } catch {
      close(descriptor)
      if reader >= 0 { close(reader) }
      throw error
    }
    self.byteCount = byteCount
    self.isRevocable = isRevocable
    self.descriptor = descriptor
    readerDescriptor = reader
  }

  private static func mapAndSeal(
    _ descriptor: Int32, _ byteCount: Int, _ isRevocable: Bool
  ) throws(HandleError) -> UnsafeMutableRawPointer {
    guard
      let mapped = linux_mmap(
        nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED | Int32(MAP_POPULATE), descriptor, 0)
    else { throw .system(call: "mapping memory", errno: errno) }
    let size = isRevocable ? LINUX_F_SEAL_GROW : LINUX_F_SEAL_GROW | LINUX_F_SEAL_SHRINK
    let sealed = linux_fcntl(
      descriptor, LINUX_F_ADD_SEALS, Int(LINUX_F_SEAL_FUTURE_WRITE | size | LINUX_F_SEAL_SEAL))
    guard sealed >= 0 else {
      munmap(mapped, byteCount)
      throw .system(call: "sealing memory", errno: -sealed)
    }
    return mapped
  }

  /// Puts a private copy in the place of the shared pages, at the same address: call it before a handle on revocable
  /// memory ends, while no other thread writes. Readers keep what they have until then and see no more changes.
  /// - Throws: ``HandleError/system(call:errno:)``; nothing has changed then.
  public mutating func keepContents() throws(HandleError) {
    let copy = linux_memfd_create("kept", LINUX_MFD_CLOEXEC)
    guard copy >= 0 else { throw .system(call: "memfd_create", errno: -copy) }
    defer { close(copy) }
    guard ftruncate(copy, byteCount) == 0 else { throw .system(call: "ftruncate", errno: errno) }
    guard
      let place = linux_mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, copy, 0)
    else { throw .system(call: "mapping memory", errno: errno) }
    place.copyMemory(from: address, byteCount: byteCount)
    munmap(place, byteCount)
    let replaced = linux_replace_mapping(address, byteCount, PROT_READ | PROT_WRITE, copy)
    guard replaced == 0 else { throw .system(call: "mapping memory", errno: -replaced) }
  }

  deinit {
    munmap(address, byteCount)
    close(descriptor)
    close(readerDescriptor)
  }
}
