/// Memory that a device may reach: where this process sees it and where the device does.
///
/// A plain view: it does not keep the mapping alive. Whoever made the mapping outlives every use. Any thread; what lies
/// in it is read and written by the accessors, each once.
@frozen
public struct DMARange: BitwiseCopyable, @unchecked Sendable {
  // Invariant: `address` points at `byteCount` mapped bytes, `iova` at the same bytes in the device's address space.
  /// The first byte, in this process.
  public let address: UnsafeMutableRawPointer
  /// The first byte's address as the device uses it.
  public let iova: UInt64
  /// Bytes, the same for both.
  public let byteCount: Int

  /// - Parameters:
  ///   - address: the first byte, in this process.
  ///   - iova: the same byte, for the device.
  ///   - byteCount: bytes that are mapped for both.
  @inlinable
  public init(address: UnsafeMutableRawPointer, iova: UInt64, byteCount: Int) {
    self.address = address
    self.iova = iova
    self.byteCount = byteCount
  }

  /// A part of this range, or nil where it does not lie inside.
  /// - Parameters:
  ///   - offset: bytes from this range's start.
  ///   - byteCount: bytes of the part; 0 is allowed.
  @inlinable
  public func part(at offset: Int, byteCount: Int) -> DMARange? {
    guard offset >= 0, byteCount >= 0, offset <= self.byteCount,
      byteCount <= self.byteCount - offset
    else { return nil }
    return DMARange(
      address: address + offset, iova: iova &+ UInt64(offset), byteCount: byteCount)
  }

  /// The first `byteCount` bytes, of which there must be as many.
  @inlinable
  public func first(_ byteCount: Int) -> DMARange {
    precondition(byteCount >= 0 && byteCount <= self.byteCount)
    return DMARange(address: address, iova: iova, byteCount: byteCount)
  }

  /// What follows the first `offset` bytes, of which there must be as many.
  @inlinable
  public func dropFirst(_ offset: Int) -> DMARange {
    precondition(offset >= 0 && offset <= byteCount)
    return DMARange(
      address: address + offset, iova: iova &+ UInt64(offset), byteCount: byteCount - offset)
  }

  /// Whether a descriptor's bytes lie wholly inside this range, which is an arena's from its first byte.
  @inlinable
  public func contains(_ descriptor: Descriptor) -> Bool {
    descriptor.position &+ UInt64(descriptor.length) <= UInt64(byteCount)
  }
}

/// Hands out pieces of a DMA range from its start, for rings and other tables that live as long as their device.
/// Nothing is given back singly. One thread at a time.
public struct DMAZone: ~Copyable {
  /// All of the zone's memory.
  public let range: DMARange
  /// Bytes from its start that were handed out, with what was skipped for alignment.
  public private(set) var used = 0

  /// - Parameter range: memory that the device may read and write and that nobody else uses.
  public init(_ range: DMARange) { self.range = range }

  /// Hands out the next piece.
  /// - Parameters:
  ///   - byteCount: bytes wanted.
  ///   - alignment: a power of two, in bytes, of the IOVA: the device's view of the piece.
  /// - Returns: zeroed memory, or nil where the zone is exhausted.
  public mutating func allocate(byteCount: Int, alignment: Int) -> DMARange? {
    precondition(alignment > 0 && alignment & (alignment - 1) == 0 && byteCount >= 0)
    let misaligned = Int(truncatingIfNeeded: range.iova &+ UInt64(used)) & (alignment - 1)
    let start = misaligned == 0 ? used : used + alignment - misaligned
    guard let part = range.part(at: start, byteCount: byteCount) else { return nil }
    used = start + byteCount
    part.address.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    return part
  }

  /// Forgets all that was handed out. The device must be stopped.
  public mutating func reset() { used = 0 }
}
