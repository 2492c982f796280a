import CLinux
import Commands
import Glibc
import Handles
import VFIO

/// Memory of an application that an instance sends from. It stays the application's own; here it is mapped for reading
/// only, since the kernel's VFIO is told of memory by its address.
final class RegisteredExtent {
  /// By what the instance knows it.
  let handle: HandleID
  /// The broker's number of the registration.
  let number: UInt64
  /// Where it begins, in bytes from the instance's arena's start.
  let offset: Int
  let byteCount: Int
  /// Its first byte, in the memory behind the handle.
  let start: UInt64
  var stage = Stage.registering
  /// Of the command that waits for what comes of it.
  var token: CommandToken?
  /// Whether the device may read it.
  var isMapped = true
  /// Its handle has ended before it was registered.
  var isRevoked = false
  /// The memory, kept for the next driver host.
  let descriptor: Int32
  // Invariant: `byteCount` bytes are mapped from here until deinit. Nobody here reads them: their owner may take the pages.
  private let address: UnsafeMutableRawPointer

  enum Stage {
    /// The device can read it; the driver host has been told and has not answered.
    case registering
    case registered
    /// The driver host has been told to let go.
    case unregistering
    /// The device's mapping is being taken away.
    case unmapping
  }

  /// - Throws: the kernel's reason.
  init(
    _ memory: borrowing RegisteredMemory, handle: HandleID, offset: Int
  ) throws(SupervisorError) {
    guard
      let mapped = linux_mmap(
        nil, memory.range.count, PROT_READ, MAP_SHARED, memory.descriptor,
        off_t(memory.range.lowerBound))
    else { throw .system("mapping an application's memory", errno) }
    address = mapped
    descriptor = linux_fcntl(memory.descriptor, F_DUPFD_CLOEXEC, 3)
    self.handle = handle
    number = memory.number
    self.offset = offset
    byteCount = memory.range.count
    start = memory.range.lowerBound
  }

  deinit {
    munmap(address, byteCount)
    if descriptor >= 0 { close(descriptor) }
  }

  /// What the device is told of.
  var memory: DMAMemory {
    DMAMemory(
      address: address, descriptor: descriptor, offset: start, byteCount: UInt64(byteCount))
  }

  /// What of the instance's positions it takes: whole granules.
  var place: Range<Int> {
    let granule = WindowPlan.granule
    return offset..<offset + (byteCount + granule - 1) / granule * granule
  }
}
