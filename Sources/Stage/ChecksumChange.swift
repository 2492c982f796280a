import Memory

/// How the words that an Internet checksum covers have changed (RFC 1624, equation 3): what is known of the rest of the
/// packet does not matter, so that a checksum that was wrong stays wrong.
///
/// The words are those at even distances from where the sum begins. A plain value.
@frozen
public struct ChecksumChange: BitwiseCopyable, Sendable {
  /// Of what has come and the complements of what has gone; not folded.
  @usableFromInline var sum: UInt64 = 0

  /// No change.
  @inlinable public init() {}

  /// A word has become another one.
  @inlinable
  public mutating func replace(_ old: UInt16, with new: UInt16) {
    sum &+= UInt64(~old) &+ UInt64(new)
  }

  /// Two words that follow each other have.
  @inlinable
  public mutating func replace(_ old: UInt32, with new: UInt32) {
    sum &+=
      UInt64(~old &>> 16) &+ UInt64(~old & 0xffff) &+ UInt64(new &>> 16)
      &+ UInt64(new & 0xffff)
  }

  /// Four words have.
  @inlinable
  public mutating func replace(_ old: UInt64, with new: UInt64) {
    replace(UInt32(truncatingIfNeeded: old &>> 32), with: UInt32(truncatingIfNeeded: new &>> 32))
    replace(UInt32(truncatingIfNeeded: old), with: UInt32(truncatingIfNeeded: new))
  }

  /// What else has changed, in the same sum.
  @inlinable
  public mutating func add(_ other: ChecksumChange) { sum &+= other.sum }

  @inlinable
  static func fold(_ sum: UInt64) -> UInt16 {
    var sum = (sum & 0xffff_ffff) &+ sum &>> 32
    while sum > 0xffff { sum = sum & 0xffff &+ sum &>> 16 }
    return UInt16(truncatingIfNeeded: sum)
  }

  /// The checksum that follows from one that was there.
  @inlinable
  public func applied(to checksum: UInt16) -> UInt16 {
    ~Self.fold(UInt64(~checksum) &+ sum)
  }

  /// The same of a sum that has not been complemented: that of the pseudo-header, from which the device goes on.
  @inlinable
  public func applied(toPartialSum partial: UInt16) -> UInt16 {
    Self.fold(UInt64(partial) &+ sum)
  }
}

/// Writing what a checksum covers.
extension StagePacket {
  /// Writes two bytes in network order, and notes what has changed.
  @inlinable
  public mutating func replace16(
    _ value: UInt16, at offset: Int, _ change: inout ChecksumChange
  ) {
    change.replace(number16(at: offset), with: value)
    store16(value, at: offset)
  }

  /// Writes four bytes in network order, and notes what has changed.
  @inlinable
  public mutating func replace32(
    _ value: UInt32, at offset: Int, _ change: inout ChecksumChange
  ) {
    change.replace(number32(at: offset), with: value)
    store32(value, at: offset)
  }

  /// Changes the checksum at an offset.
  @inlinable
  public mutating func correct(_ change: ChecksumChange, at offset: Int) {
    store16(change.applied(to: number16(at: offset)), at: offset)
  }

  /// Changes a UDP checksum, where there is one: 0 means none, and what would be 0 is 0xffff (RFC 768).
  @inlinable
  public mutating func correctUDP(_ change: ChecksumChange, at offset: Int) {
    let old = number16(at: offset)
    if old == 0 { return }
    let new = change.applied(to: old)
    store16(new == 0 ? 0xffff : new, at: offset)
  }
}
