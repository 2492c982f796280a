import CLinux
import Channel
import Glibc
import Memory
import Steering

/// One instance as the control thread knows it. The memory that is mapped for it stays so until ``unmap(_:)``.
final class AttachedInstance {
  /// Slot index and generation, as the supervisor names it.
  let id: UInt32
  /// Where its arena begins in the window, in bytes.
  let base: Int
  let channel: ChannelMemory
  /// Its memory in the window, the first extent first: bytes, and the guard of each.
  private(set) var extents: [(byteCount: Int, guardSlot: Int32)] = []
  private let channelGuard: Int32
  /// Our end of the sockets that wake it; -1 for none yet.
  private(set) var doorbell: Int32 = -1
  /// What it rings, and whom that wakes: one for each queue.
  private var hostDoorbells: [(descriptor: Int32, wakes: WakeSet)] = []
  /// One for each queue; with the queue threads until they have released them.
  var ports: [UnsafeMutablePointer<InstancePort>] = []
  var claims: [Claim] = []
  /// The supervisor has been told that it was closed.
  var isClosed = false
  var isLeaving = false
  /// A smaller arena is waited for: its size, and how often each path had settled before.
  var shrinking: (byteCount: Int, settled: [UInt32])?

  var index: Int { Int(id & 0xff) }
  /// Bytes of its arena.
  var arenaBytes: Int { extents.reduce(0) { $0 + $1.byteCount } }

  /// - Parameter channel: mapped already.
  init(id: UInt32, base: Int, channel: consuming ChannelMemory) {
    self.id = id
    self.base = base
    let bytes = channel.bytes
    channelGuard = linux_bus_guard_add(bytes.baseAddress!, bytes.count)
    self.channel = channel
  }

  /// Takes descriptors of its own of what wakes the instance, and then, for each queue, of what the instance rings.
  /// - Returns: false where some are not what they should be.
  func takeDoorbells(_ descriptors: ArraySlice<Int32>, _ wakes: [WakeSet]) -> Bool {
    let own = descriptors.map { linux_fcntl($0, F_DUPFD_CLOEXEC, 3) }
    doorbell = own.first ?? -1
    for (descriptor, wake) in zip(own.dropFirst(), wakes) where descriptor >= 0 {
      hostDoorbells.append((descriptor, wake))
    }
    return doorbell >= 0 && hostDoorbells.count == wakes.count
      && hostDoorbells.allSatisfy { $0.wakes.add($0.descriptor) }
  }

  deinit {
    for port in ports {
      port.deinitialize(count: 1)
      port.deallocate()
    }
    linux_bus_guard_remove(channelGuard)
    for (descriptor, wakes) in hostDoorbells {
      wakes.remove(descriptor)
      close(descriptor)
    }
    if doorbell >= 0 { close(doorbell) }
  }

  /// Maps one extent behind the last one.
  func map(_ descriptor: Int32, byteCount: Int, in window: borrowing MemoryWindow)
    throws(MemoryError)
  {
    let offset = base + arenaBytes
    try window.map(descriptor, at: offset, byteCount: byteCount)
    let slot = linux_bus_guard_add(window.address + offset, byteCount)
    guard slot >= 0 else {
      try window.unmap(at: offset, byteCount: byteCount)
      throw .system(call: "guarding memory", errno: -slot)
    }
    extents.append((byteCount, slot))
  }

  /// Whether whole extents can be taken from the end so that so many bytes stay, the first extent among them.
  func canShrink(to byteCount: Int) -> Bool {
    var left = 0
    for extent in extents {
      left += extent.byteCount
      if left == byteCount { return left < arenaBytes }
    }
    return false
  }

  /// Unmaps extents from the end until so many bytes stay.
  func unmap(to byteCount: Int, in window: borrowing MemoryWindow) throws(MemoryError) {
    while arenaBytes > byteCount, let last = extents.popLast() {
      linux_bus_guard_remove(last.guardSlot)
      try window.unmap(at: base + arenaBytes, byteCount: last.byteCount)
    }
  }

  /// Whether any of its memory has gone away under the host.
  var hasLostMemory: Bool {
    linux_bus_guard_is_replaced(channelGuard) != 0
      || extents.contains { linux_bus_guard_is_replaced($0.guardSlot) != 0 }
  }

  /// Whether a range of the window is its, or will be when it grows by what is asked for.
  func overlaps(_ range: Range<Int>) -> Bool { (base..<base + arenaBytes).overlaps(range) }
}
