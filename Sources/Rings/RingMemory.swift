import CLinux
import Memory

/// Memory that a driver and its device both use at any time: rings and index words of devices that have no virtqueues.
///
/// Every access is checked against the range, is done exactly once and is not torn: what a load returns may be checked
/// and then used. An offset outside the range, or not aligned to the access, is a defect of the driver and traps.
@frozen
public struct RingMemory: BitwiseCopyable, @unchecked Sendable {
  // Invariant: `address` points at `byteCount` bytes of DMA memory, aligned to 8, which outlive every use.
  @usableFromInline let address: UnsafeMutableRawPointer
  public let byteCount: Int
  /// The first byte's address as the device uses it.
  public let iova: UInt64

  /// - Parameter range: its first byte is aligned to 8.
  @inlinable
  public init(_ range: DMARange) {
    precondition(UInt(bitPattern: range.address) & 7 == 0)
    address = range.address
    byteCount = range.byteCount
    iova = range.iova
  }

  @inlinable
  public func load32(at offset: Int) -> UInt32 { relaxed_load32(checked(offset, 4)) }
  @inlinable
  public func load64(at offset: Int) -> UInt64 { relaxed_load64(checked(offset, 8)) }
  @inlinable
  public func store32(_ value: UInt32, at offset: Int) {
    relaxed_store32(checked(offset, 4), value)
  }
  @inlinable
  public func store64(_ value: UInt64, at offset: Int) {
    relaxed_store64(checked(offset, 8), value)
  }

  /// An index that the device has moved: what it wrote before is seen by later loads.
  @inlinable
  public func loadIndex(at offset: Int) -> UInt32 { acquire_load32(checked(offset, 4)) }

  /// Before a doorbell: the device sees all earlier stores.
  @inlinable
  public static func publish() { release_fence() }

  /// Between what tells the device to signal and the last look at its indexes: neither moves across.
  @inlinable
  public static func order() { full_fence() }

  @inlinable @inline(__always)
  func checked(_ offset: Int, _ width: Int) -> UnsafeMutableRawPointer {
    precondition(offset >= 0 && offset <= byteCount &- width && offset & (width &- 1) == 0)
    return address + offset
  }
}
