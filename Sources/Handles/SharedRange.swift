import CLinux
import Glibc

/// Another process's memory, mapped here by a handle; unmapped with this value. Its owner may write at any time: what
/// matters is read once, checked, then used.
///
/// Where ``isRevocable``, the pages can be taken away: who touches them then gets SIGBUS. Revocable memory is for programs
/// that handle that signal, or that the owner tells before.
public struct SharedRange: ~Copyable, @unchecked Sendable {
  // Invariant: `address` points at `byteCount` mapped bytes until deinit, writable where `rights` say so.
  private let address: UnsafeMutableRawPointer
  /// Bytes that are mapped.
  public let byteCount: Int
  /// What may be done with them.
  public let rights: MemoryHandle.Rights
  /// Whether the owner can take the pages away.
  public let isRevocable: Bool

  /// Maps all of a descriptor's memory; the descriptor stays the caller's.
  /// - Throws: ``HandleError``: the memory is not what the broker said.
  init(
    _ descriptor: Int32, byteCount: Int, rights: MemoryHandle.Rights, isRevocable: Bool
  ) throws(HandleError) {
    let facts: MemoryFacts
    do throws(HandleRefusal) { facts = try MemoryFacts(inspecting: descriptor) } catch {
      throw .refused(error)
    }
    guard byteCount > 0, facts.byteCount == byteCount else { throw .refused(.outOfRange) }
    guard isRevocable || facts.has(LINUX_F_SEAL_SHRINK) else { throw .refused(.notSealed) }
    let protection = rights == .readWrite ? PROT_READ | PROT_WRITE : PROT_READ
    guard let mapped = linux_mmap(nil, byteCount, protection, MAP_SHARED, descriptor, 0) else {
      throw .system(call: "mapping memory", errno: errno)
    }
    address = mapped
    self.byteCount = byteCount
    self.rights = rights
    self.isRevocable = isRevocable
  }

  deinit { munmap(address, byteCount) }

  /// All bytes, for reading.
  public var bytes: RawSpan {
    @_lifetime(borrow self)
    get {
      let span = unsafe RawSpan(_unsafeStart: address, byteCount: byteCount)
      return unsafe _overrideLifetime(span, borrowing: self)
    }
  }

  /// All bytes, for writing. The handle must give the right to write.
  public var mutableBytes: MutableRawSpan {
    @_lifetime(&self)
    mutating get {
      precondition(rights == .readWrite, "the handle gives no right to write")
      let span = unsafe MutableRawSpan(_unsafeStart: address, byteCount: byteCount)
      return unsafe _overrideLifetime(span, mutating: &self)
    }
  }
}
