import Glibc

/// An instance's arena: memory in extents, one mapped behind the other in one range of addresses, which is reserved for the
/// most that there may be. It grows and shrinks by whole extents at its end. One thread maps; the bytes are everyone's.
public struct ExtensibleArena: ~Copyable {
  private let window: MemoryWindow
  /// Where each extent ends, in bytes from the arena's start.
  private var ends: [Int]

  /// - Parameters:
  ///   - descriptor: the first extent, of which nothing is given up before all is; the arena's to close, also when this
  ///     throws.
  ///   - byteCount: of the first extent.
  ///   - maximum: bytes that the arena may grow to.
  ///   - address: where it has to be mapped; nil leaves that to the kernel.
  /// - Throws: ``MemoryError``: it is too small, not sealed, or cannot be mapped.
  public init(
    adopting descriptor: Int32, byteCount: Int, maximum: Int, at address: UInt? = nil
  ) throws(MemoryError) {
    let memory = OwnDescriptor(descriptor)
    let unit = Arena.PageSize.huge2M.rawValue
    let reserved = (max(byteCount, maximum) + unit - 1) / unit * unit
    let window = try MemoryWindow(byteCount: reserved, at: address)
    try window.map(memory.number, at: 0, byteCount: byteCount)
    self.window = window
    ends = [byteCount]
  }

  /// The first byte, in this process.
  public var address: UnsafeMutableRawPointer { window.address }
  /// Bytes that are mapped.
  public var byteCount: Int { ends[ends.count - 1] }

  /// Maps an extent behind what there is.
  /// - Parameters:
  ///   - descriptor: the memory; the arena's to close, also when this throws.
  ///   - offset: where the supervisor has it, in bytes from the arena's start.
  ///   - byteCount: how much of it.
  /// - Throws: ``MemoryError``: it does not fit there, is too small, not sealed, or cannot be mapped.
  public mutating func extend(
    adopting descriptor: Int32, at offset: Int, byteCount: Int
  ) throws(MemoryError) {
    let memory = OwnDescriptor(descriptor)
    guard offset == self.byteCount, byteCount > 0 else {
      throw .badSize(byteCount: byteCount, pageSize: Arena.PageSize.huge2M.rawValue)
    }
    // Present at the first touch: mapping all of a large extent at once would keep packets waiting.
    try window.map(memory.number, at: offset, byteCount: byteCount, isPresent: false)
    ends.append(offset + byteCount)
  }

  /// The smallest arena of whole extents that has so many bytes at least.
  public func extentEnd(from byteCount: Int) -> Int {
    ends.first { $0 >= byteCount } ?? self.byteCount
  }

  /// Unmaps whole extents from the end until no more than `byteCount` bytes are left, or only the first extent. Nobody may
  /// use what goes.
  public mutating func shrink(to byteCount: Int) throws(MemoryError) {
    while ends.count > 1, self.byteCount > byteCount {
      let start = ends[ends.count - 2]
      try window.unmap(at: start, byteCount: self.byteCount - start)
      ends.removeLast()
    }
  }
}

/// A descriptor that is closed when its scope ends.
private struct OwnDescriptor: ~Copyable {
  let number: Int32
  init(_ number: Int32) { self.number = number }
  deinit { close(number) }
}
