import CLinux
import Memory

/// Named counters in shared memory: written by one process with plain stores, read by others without disturbing it.
///
/// Names follow DPDK's xstats grammar, such as rx_q0_packets. Layout: magic, version and count in the first 64 bytes,
/// then 64 bytes for each counter: its value, then its name, ended by a zero.
public struct CounterPage: ~Copyable, @unchecked Sendable {
  // Invariant: the arena holds `count` entries behind its first 64 bytes.
  private let arena: Arena
  public let count: Int
  private static let magic: UInt32 = 0x4e43_524d  // "MRCN"

  public var descriptor: Int32 { arena.descriptor }

  private static func bytes(_ count: Int) -> Int { (64 + count * 64 + 4095) / 4096 * 4096 }

  /// Makes a page with room for `capacity` counters; its writer names them.
  public init(capacity: Int) throws(MemoryError) {
    count = capacity
    arena = try Arena(
      byteCount: Self.bytes(capacity), pageSize: .ordinary, name: "martlet-counters")
    arena.address.storeBytes(of: Self.magic, as: UInt32.self)
  }

  /// Maps a page that came from another process. The descriptor is the page's from now on.
  public init(adopting descriptor: Int32, capacity: Int, writable: Bool) throws(MemoryError) {
    count = capacity
    arena = try Arena(
      adopting: descriptor, byteCount: Self.bytes(capacity), writable: writable)
  }

  /// Names a counter, which is 0 then; without a name it is not shown. Names longer than 55 bytes are cut.
  public func name(_ index: Int, _ name: String) {
    precondition(index >= 0 && index < count)
    let entry = arena.address + 64 + index * 64
    relaxed_store64(entry, 0)
    var at = 8
    for byte in name.utf8.prefix(55) {
      entry.storeBytes(of: byte, toByteOffset: at, as: UInt8.self)
      at += 1
    }
    entry.storeBytes(of: 0, toByteOffset: at, as: UInt8.self)
  }

  /// Adds to a counter that several threads have in common; what is taken away wraps round.
  public func add(_ index: Int, _ change: UInt64) {
    precondition(index >= 0 && index < count)
    _ = atomic_add64(arena.address + 64 + index * 64, change)
  }

  public func set(_ index: Int, _ value: UInt64) {
    precondition(index >= 0 && index < count)
    relaxed_store64(arena.address + 64 + index * 64, value)
  }

  /// One counter's value.
  public func value(_ index: Int) -> UInt64 {
    precondition(index >= 0 && index < count)
    return relaxed_load64(arena.address + 64 + index * 64)
  }

  /// All counters that have a name. What another process wrote as a name is not trusted: only letters, digits and
  /// underscores are taken.
  public func read() -> [(name: String, value: UInt64)] {
    var result: [(String, UInt64)] = []
    for index in 0..<count {
      let entry = arena.address + 64 + index * 64
      var name: [UInt8] = []
      for at in 8..<64 {
        let byte = volatile_load8(entry + at)
        let isLetter = byte >= 97 && byte <= 122
        let isDigit = byte >= 48 && byte <= 57
        guard isLetter || isDigit || byte == 95 else { break }
        name.append(byte)
      }
      if name.isEmpty { continue }
      result.append((String(decoding: name, as: UTF8.self), relaxed_load64(entry)))
    }
    return result
  }
}
