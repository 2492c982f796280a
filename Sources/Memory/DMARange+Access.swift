import CLinux

/// Reads and writes of memory that a device uses at the same time. Each is done exactly once, little-endian, at a
/// multiple of its width, and never outside the range (a precondition: a defect of the driver). What was read may be
/// checked and then used. Loads and stores are not ordered among themselves unless they say so. Any thread.
extension DMARange {
  @inlinable @inline(__always)
  func at(_ offset: Int, _ width: Int) -> UnsafeMutableRawPointer {
    precondition(offset >= 0 && offset <= byteCount &- width && offset & (width &- 1) == 0)
    return address + offset
  }

  /// One byte.
  @inlinable public func load8(at offset: Int) -> UInt8 { volatile_load8(at(offset, 1)) }
  /// Four bytes; `offset` is a multiple of 4.
  @inlinable public func load32(at offset: Int) -> UInt32 { relaxed_load32(at(offset, 4)) }
  /// Eight bytes; `offset` is a multiple of 8.
  @inlinable public func load64(at offset: Int) -> UInt64 { relaxed_load64(at(offset, 8)) }
  /// Twelve bytes as three words, each read once; `offset` is a multiple of 4.
  @inlinable public func loadThree32(at offset: Int) -> (UInt32, UInt32, UInt32) {
    precondition(offset >= 0 && offset <= byteCount &- 12 && offset & 3 == 0)
    let words = address + offset
    return (relaxed_load32(words), relaxed_load32(words + 4), relaxed_load32(words + 8))
  }
  /// The first and the last four of twelve bytes, each read once; `offset` is a multiple of 4, which is not checked.
  @inlinable @inline(__always)
  public func loadFirstAndLast32(ofTwelveAt offset: Int) -> (UInt32, UInt32) {
    precondition(offset >= 0 && offset <= byteCount &- 12)
    let words = address + offset
    return (relaxed_load32(words), relaxed_load32(words + 8))
  }
  /// Zeroes twelve bytes; `offset` is a multiple of 4, which is not checked.
  @inlinable @inline(__always)
  public func clearThree32(at offset: Int) {
    precondition(offset >= 0 && offset <= byteCount &- 12)
    let words = address + offset
    relaxed_store32(words, 0)
    relaxed_store32(words + 4, 0)
    relaxed_store32(words + 8, 0)
  }
  /// What is read after it was written by the device before what this reads.
  @inlinable public func loadAcquiring32(at offset: Int) -> UInt32 {
    acquire_load32(at(offset, 4))
  }
  /// One byte.
  @inlinable public func store8(_ value: UInt8, at offset: Int) {
    volatile_store8(at(offset, 1), value)
  }
  /// Four bytes; `offset` is a multiple of 4.
  @inlinable public func store32(_ value: UInt32, at offset: Int) {
    relaxed_store32(at(offset, 4), value)
  }
  /// Eight bytes; `offset` is a multiple of 8.
  @inlinable public func store64(_ value: UInt64, at offset: Int) {
    relaxed_store64(at(offset, 8), value)
  }

  /// Eight bytes. What is read after it was written by the device before what this reads.
  @inlinable public func loadAcquiring64(at offset: Int) -> UInt64 {
    acquire_load64(at(offset, 8))
  }
  /// Eight bytes. What was written before is visible to the device before this.
  @inlinable public func storeReleasing64(_ value: UInt64, at offset: Int) {
    release_store64(at(offset, 8), value)
  }

  /// Two bytes in network order, at any offset.
  @inlinable public func loadNetwork16(at offset: Int) -> UInt16 {
    UInt16(load8(at: offset)) &<< 8 | UInt16(load8(at: offset &+ 1))
  }
  /// Two bytes in network order, at any offset.
  @inlinable public func storeNetwork16(_ value: UInt16, at offset: Int) {
    store8(UInt8(truncatingIfNeeded: value &>> 8), at: offset)
    store8(UInt8(truncatingIfNeeded: value), at: offset &+ 1)
  }

  /// Before a doorbell: the device sees all earlier stores.
  @inlinable public func publish() { release_fence() }

  /// Parts memory accesses from register accesses: what was written to memory before is there when the device is told
  /// of it after, and what the device wrote before it said so is read after.
  @inlinable public func synchronize() { full_fence() }
}
