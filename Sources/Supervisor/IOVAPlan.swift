/// Chooses where in the device's address space memory appears.
public struct IOVAPlan {
  private let ranges: [ClosedRange<UInt64>]
  private var next: UInt64

  /// - Parameters:
  ///   - ranges: what the device can address, ascending.
  ///   - start: the lowest address to use; 256 MiB keeps clear of anything that firmware likes.
  public init(ranges: [ClosedRange<UInt64>], start: UInt64 = 0x1000_0000) {
    self.ranges = ranges
    next = start
  }

  /// Reserves `byteCount` bytes that lie in one range.
  /// - Parameter alignment: a power of two, in bytes.
  /// - Returns: the first address, or nil where nothing fits.
  public mutating func reserve(byteCount: UInt64, alignment: UInt64) -> UInt64? {
    for range in ranges {
      let (raised, overflow) = max(next, range.lowerBound).addingReportingOverflow(alignment - 1)
      if overflow { continue }
      let start = raised & ~(alignment - 1)
      guard start <= range.upperBound, byteCount - 1 <= range.upperBound - start else { continue }
      next = start + byteCount
      return start
    }
    return nil
  }
}
