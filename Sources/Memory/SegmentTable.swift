import CLinux

/// Where the segments of a pool and their headers lie: what never changes once the pool is made. Any thread.
@frozen @usableFromInline
struct SegmentTable: @unchecked Sendable {
  /// One segment's header, 64 bytes.
  @frozen @usableFromInline
  struct Header: BitwiseCopyable {
    @usableFromInline var sizeClass: UInt32
    /// References; 0 while free. With the class it is one word that says whether a segment can simply be freed.
    @usableFromInline var references: UInt32
    /// First address, in bytes from the arena's start.
    @usableFromInline var position: UInt64
    // A cache line of its own.
    @usableFromInline var padding: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) =
      (0, 0, 0, 0, 0, 0)

    init(sizeClass: Int, position: Int) {
      self.sizeClass = UInt32(sizeClass)
      references = 0
      self.position = UInt64(position)
    }
  }

  // Invariant: `headers` has one initialised header for each of the `unitCount` units of data, of which those are used
  // where a segment begins; the references of all others stay 0. `blocks` has the class of each 128 KiB, or `absent` where
  // the pool has no memory. Both outlive the pool's users.
  @usableFromInline let headers: UnsafeMutablePointer<Header>
  @usableFromInline let blocks: UnsafeMutablePointer<UInt8>
  /// Where the data begins, in units of ``Descriptor/unit``.
  @usableFromInline let firstUnit: UInt32
  @usableFromInline let unitCount: UInt32

  /// In place of a block's class: there is no memory.
  static let absent: UInt8 = 0xff

  init(
    headers: UnsafeMutablePointer<Header>, blocks: UnsafeMutablePointer<UInt8>, blockCount: Int,
    firstUnit: UInt32
  ) {
    self.headers = headers
    self.blocks = blocks
    self.firstUnit = firstUnit
    unitCount = UInt32(blockCount * 128)
  }

  /// The header of the segment that begins at `unit`; outside the data it traps.
  @inlinable @inline(__always) @_noLocks
  func header(_ unit: UInt32) -> UnsafeMutablePointer<Header> {
    // A unit below the first one wraps round to one that there is not.
    let relative = unit &- firstUnit
    precondition(relative < unitCount)
    return headers + Int(relative)
  }

  /// The same for a unit that a store of free segments names.
  @inlinable @inline(__always) @_noLocks
  func ownHeader(_ unit: UInt32) -> UnsafeMutablePointer<Header> {
    headers + Int(unit &- firstUnit)
  }

  /// The count in a header, for atomic access.
  @inlinable @inline(__always) @_noLocks
  func references(_ header: UnsafeMutablePointer<Header>) -> UnsafeMutableRawPointer {
    UnsafeMutableRawPointer(header) + MemoryLayout<UInt32>.size
  }

  /// A header's first word where the segment has one reference.
  @inlinable @inline(__always) @_noLocks
  static func alone(_ sizeClass: Int) -> UInt64 { 1 &<< 32 | UInt64(sizeClass) }

  /// The segment that holds an address of the data, in bytes from the arena's start; nil outside.
  @inlinable
  func segment(at position: UInt64) -> Segment? {
    let unit = position / UInt64(Descriptor.unit)
    if unit < UInt64(firstUnit) { return nil }
    let relative = unit - UInt64(firstUnit)
    if relative >= UInt64(unitCount) { return nil }
    let sizeClass = UInt32(blocks[Int(relative >> 7)])
    if sizeClass >= UInt32(SegmentPool.classCount) { return nil }
    let start = UInt32(relative) & ~((1 << sizeClass) - 1)
    return Segment(unit: firstUnit + start, byteCount: 1024 << Int(sizeClass))
  }
}

extension UnsafeMutablePointer<SegmentTable.Header> {
  // Class and count are written as the one word as which they are read soon: a load waits for a smaller store before it.

  /// One reference, of whoever allocates the segment.
  @inlinable @inline(__always) @_noLocks
  func lend(_ sizeClass: Int) { release_store64(self, SegmentTable.alone(sizeClass)) }

  /// No reference.
  @inlinable @inline(__always) @_noLocks
  func free(_ sizeClass: Int) { relaxed_store64(self, UInt64(sizeClass)) }
}

/// A piece of an arena that a pool has handed out.
@frozen
public struct Segment: BitwiseCopyable, Sendable, Equatable {
  /// First address, in units of ``Descriptor/unit`` from the arena's start.
  public var unit: UInt32
  /// Bytes: its class's size.
  public var byteCount: Int

  /// - Parameters:
  ///   - unit: in units of ``Descriptor/unit`` from the arena's start.
  ///   - byteCount: its class's size.
  @inlinable @_noLocks
  public init(unit: UInt32, byteCount: Int) {
    self.unit = unit
    self.byteCount = byteCount
  }
}
