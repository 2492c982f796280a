import CLinux
import Glibc

/// What an application asks for when its memory is to be used by the device: the id of a handle whose receiver it is.
public struct RegistrationRequest: Sendable {
  /// Of a handle whose receiver asks.
  public var id: HandleID
  /// Whether the device is to write, that is to receive into the memory; else it only reads, to transmit.
  public var isForReceive: Bool
  /// What offset and size must be multiples of: 2 MiB for an extent of an instance, 0 for the memory's own pages.
  public var granule: UInt64

  /// For the memory's own pages unless a granule is given.
  public init(id: HandleID, isForReceive: Bool, granule: UInt64 = 0) {
    self.id = id
    self.isForReceive = isForReceive
    self.granule = granule
  }

  /// The rules for memory that a device is to reach: whole pages that nobody can take away.
  func check(_ handle: MemoryHandle) throws(HandleRefusal) {
    let facts = handle.facts
    guard !isForReceive || handle.rights == .readWrite else { throw .noRight }
    guard facts.has(LINUX_F_SEAL_SHRINK, LINUX_F_SEAL_GROW) else { throw .notSealed }
    let unit = max(facts.pageSize, granule)
    guard handle.range.lowerBound % unit == 0, UInt64(handle.range.count) % unit == 0 else {
      throw .unaligned
    }
  }
}

/// Memory that the device may be given: `range` of `descriptor`, nothing else. It stays the process's until the
/// registration is ended with ``HandleService/endRegistration(_:)``, after the IOMMU has unmapped it.
public struct RegisteredMemory: ~Copyable {
  /// Counts up from 1.
  public let number: UInt64
  /// Closed with this value.
  public let descriptor: Int32
  /// Bytes of the descriptor's memory: whole pages.
  public let range: Range<UInt64>
  /// Bytes of a page: 4096, or those of huge pages.
  public let pageSize: UInt64
  /// Whether the device may write.
  public let rights: MemoryHandle.Rights

  deinit { close(descriptor) }
}

extension HandleService {
  /// Lets the device use a handle's memory for a peer: for the command server. Counts as one use.
  /// - Parameters:
  ///   - request: what it asks for.
  ///   - peer: the instance that asks, as the kernel has identified it.
  ///   - now: the clock of ``serve(now:)``.
  /// - Throws: ``HandleRefusal``, counted.
  public func register(
    _ request: RegistrationRequest, by peer: HandlePeer, now: UInt64
  ) throws(HandleRefusal) -> RegisteredMemory {
    let handle = try broker.use(request.id, by: peer, now: now) { (handle) throws(HandleRefusal) in
      try request.check(handle)
      return handle
    }
    let copy = linux_fcntl(
      try memory.descriptor(handle.memory), LINUX_F_DUPFD_CLOEXEC, 0)
    guard copy >= 0 else { throw broker.count(.kernel) }
    lastRegistration += 1
    registrations[handle.number, default: []].insert(lastRegistration)
    registered[lastRegistration] = handle.number
    return RegisteredMemory(
      number: lastRegistration, descriptor: copy, range: handle.range,
      pageSize: handle.facts.pageSize, rights: handle.rights)
  }

  /// Forgets a registration that the device and the IOMMU have let go.
  public func endRegistration(_ number: UInt64) {
    guard let handle = registered.removeValue(forKey: number) else { return }
    registrations[handle]?.remove(number)
    if registrations[handle]?.isEmpty == true { registrations[handle] = nil }
  }

  /// Registrations whose handles have ended since the last call: the device has to let go of them.
  public func takeEndedRegistrations() -> [UInt64] {
    defer { endedRegistrations = [] }
    return endedRegistrations
  }
}
