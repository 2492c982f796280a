import CLinux
import Channel
import Glibc
import Memory
import Steering

/// One instance as the control thread knows it. The memory that is mapped for it stays so until ``unmap(_:)``.
final class AttachedInstance {
  /// Slot index and generation, as the supervisor names it.
  let id: UInt32
  /// What rules call it.
  let name: String
  /// Where its arena begins in the window, in bytes.
  let base: Int
  let channel: ChannelMemory
  /// The records of its paths.
  private let record: Arena
  /// Its memory in the window, the first extent first: bytes, and the guard of each.
  private(set) var extents: [(byteCount: Int, guardSlot: Int32)] = []
  private let channelGuard: Int32
  /// Our end of the sockets that wake it; -1 for none yet.
  private(set) var doorbell: Int32 = -1
  /// What it rings, and whom that wakes: one for each queue.
  private(set) var hostDoorbells: [HostDoorbell] = []
  /// One for each queue; with the queue threads until they have released them.
  var ports: [UnsafeMutablePointer<InstancePort>] = []
  var claims: [Claim] = []
  /// The supervisor has been told that it was closed.
  var isClosed = false
  var isLeaving = false
  /// A host before this one had it: its ports are here until all of its memory is.
  var isHeld = false
  /// Where applications' memory can be registered, in bytes from its arena's start.
  let registered: Range<Int>
  /// What is registered there, by where it begins: bytes, and the guard of each.
  private(set) var registrations: [Int: (byteCount: Int, guardSlot: Int32)] = [:]
  /// What is to be taken from it, one after the other.
  var removals: [Removal] = []
  /// The first of them is under way: how often each path had settled before.
  var settledBefore: [UInt32]?

  /// Memory that goes once the device has none of it.
  enum Removal: Equatable {
    /// All behind so many bytes of its arena.
    case shrink(to: Int)
    /// What is registered there.
    case unregister(offset: Int)

    var isShrink: Bool { if case .shrink = self { true } else { false } }
  }

  var index: Int { Int(id & 0xff) }
  /// Bytes of its arena.
  var arenaBytes: Int { extents.reduce(0) { $0 + $1.byteCount } }

  /// - Parameters:
  ///   - channel: mapped already.
  ///   - record: the same.
  init(
    id: UInt32, name: String, base: Int, registered: Range<Int>, channel: consuming ChannelMemory,
    record: consuming Arena
  ) {
    self.record = record
    self.id = id
    self.name = name
    self.registered = registered
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
      hostDoorbells.append(HostDoorbell(instance: index, descriptor: descriptor, wakes: wake))
    }
    return doorbell >= 0 && hostDoorbells.count == wakes.count
      && hostDoorbells.allSatisfy { $0.listen() }
  }

  deinit {
    for port in ports {
      port.deinitialize(count: 1)
      port.deallocate()
    }
    linux_bus_guard_remove(channelGuard)
    // Of what is mapped still: others' memory may lie there once the window is gone.
    for extent in extents { linux_bus_guard_remove(extent.guardSlot) }
    for registration in registrations.values { linux_bus_guard_remove(registration.guardSlot) }
    for doorbell in hostDoorbells {
      doorbell.silence()
      close(doorbell.descriptor)
    }
    if doorbell >= 0 { close(doorbell) }
  }

  /// The record of its path on a queue.
  func record(_ queue: Int, segments: Int) -> PathRecord {
    HostRecord.path(
      queue, segments: segments, in: record.address, byteCount: record.byteCount)
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

  // MARK: Registered memory

  /// Whether so many bytes can be registered there: behind a multiple of 2 MiB that nothing else reaches into.
  func canRegister(at offset: Int, byteCount: Int) -> Bool {
    let granule = Arena.PageSize.huge2M.rawValue
    guard byteCount > 0, byteCount % Arena.PageSize.ordinary.rawValue == 0,
      offset >= registered.lowerBound, (offset - registered.lowerBound) % granule == 0,
      offset < registered.upperBound, byteCount <= registered.upperBound - offset
    else { return false }
    let range = offset..<offset + byteCount
    return !registrations.contains { start, other in
      let end = start + (other.byteCount + granule - 1) / granule * granule
      return (start..<end).overlaps(range)
    }
  }

  /// Maps an application's memory for reading.
  /// - Parameter start: its first byte, in the descriptor's memory.
  func register(
    _ descriptor: Int32, from start: Int, at offset: Int, byteCount: Int,
    in window: borrowing MemoryWindow
  ) throws(MemoryError) {
    let place = base + offset
    try window.map(
      descriptor, from: start, at: place, byteCount: byteCount, isWritable: false)
    let slot = linux_bus_guard_add(window.address + place, byteCount)
    guard slot >= 0 else {
      try window.unmap(at: place, byteCount: byteCount)
      throw .system(call: "guarding memory", errno: -slot)
    }
    registrations[offset] = (byteCount, slot)
  }

  func unregister(at offset: Int, in window: borrowing MemoryWindow) throws(MemoryError) {
    guard let gone = registrations.removeValue(forKey: offset) else { return }
    linux_bus_guard_remove(gone.guardSlot)
    try window.unmap(at: base + offset, byteCount: gone.byteCount)
  }

  /// Whether any of its memory has gone away under the host.
  var hasLostMemory: Bool {
    linux_bus_guard_is_replaced(channelGuard) != 0
      || extents.contains { linux_bus_guard_is_replaced($0.guardSlot) != 0 }
      || registrations.values.contains { linux_bus_guard_is_replaced($0.guardSlot) != 0 }
  }

  /// Whether a range of the window is its, or will be when it grows by what is asked for.
  func overlaps(_ range: Range<Int>) -> Bool {
    (base..<base + arenaBytes).overlaps(range)
      || (base + registered.lowerBound..<base + registered.upperBound).overlaps(range)
  }
}
