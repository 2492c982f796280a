/// Bytes that anyone can compute: 64-bit little-endian words, the n-th being n times an odd constant. What a server
/// makes up a client can check, at any offset.
public enum PatternContent {
  @inlinable static var factor: UInt64 { 0x9e37_79b9_7f4a_7c15 }

  /// Writes the bytes from `offset`.
  @inlinable
  public static func fill(_ bytes: UnsafeMutableRawBufferPointer, offset: UInt64) {
    var at = 0
    while at < bytes.count {
      let position = offset &+ UInt64(at)
      let word = (position / 8) &* factor
      if position % 8 == 0 && at + 8 <= bytes.count {
        bytes.storeBytes(of: word.littleEndian, toByteOffset: at, as: UInt64.self)
        at += 8
      } else {
        bytes[at] = UInt8(truncatingIfNeeded: word >> (8 * (position % 8)))
        at += 1
      }
    }
  }

  /// - Returns: the first offset in `bytes` that differs, or nil where all are right.
  @inlinable
  public static func firstDifference(
    _ bytes: UnsafeRawBufferPointer, offset: UInt64
  ) -> Int? {
    for at in 0..<bytes.count {
      let position = offset &+ UInt64(at)
      let word = (position / 8) &* factor
      if bytes[at] != UInt8(truncatingIfNeeded: word >> (8 * (position % 8))) { return at }
    }
    return nil
  }
}
