import Memory

/// The part of an instance's positions in which applications' own memory lies while it is registered, as one queue thread
/// knows it. A registration begins at a multiple of 2 MiB from the part's start, and no two share one. One thread.
struct RegisteredPart: ~Copyable {
  /// Positions of the instance, behind all that its arena can grow to.
  let bounds: Range<UInt64>
  // Invariant: one element for each 2 MiB of `bounds`: where the registration ends that lies there, 0 for none.
  private let ends: UnsafeMutablePointer<UInt64>
  private let count: Int

  private static let granule = UInt64(Arena.PageSize.huge2M.rawValue)

  /// What a piece of a packet is made of.
  enum Finding {
    /// Not of anything that could be registered.
    case elsewhere
    /// Of memory whose registration has ended, which the instance may not know yet.
    case gone
    case registered
  }

  /// - Parameter bounds: a multiple of 2 MiB long.
  init(_ bounds: Range<UInt64>) {
    self.bounds = bounds
    count = Int(UInt64(bounds.count) / Self.granule)
    ends = .allocate(capacity: max(1, count))
    ends.initialize(repeating: 0, count: max(1, count))
  }

  deinit { ends.deallocate() }

  func find(_ start: UInt64, _ end: UInt64) -> Finding {
    guard start >= bounds.lowerBound, end <= bounds.upperBound, start < end else {
      return .elsewhere
    }
    return end <= ends[Int((start &- bounds.lowerBound) / Self.granule)] ? .registered : .gone
  }

  /// - Parameter range: in `bounds`.
  mutating func set(_ range: Range<UInt64>, isRegistered: Bool) {
    precondition(range.lowerBound >= bounds.lowerBound && range.upperBound <= bounds.upperBound)
    let first = Int((range.lowerBound - bounds.lowerBound) / Self.granule)
    let last = Int((range.upperBound - 1 - bounds.lowerBound) / Self.granule)
    for index in first...last { ends[index] = isRegistered ? range.upperBound : 0 }
  }
}
