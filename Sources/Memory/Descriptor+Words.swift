/// Slots moved as two words: segment and offset, then length, flags and tag, each behind the one before. Field by field
/// it would be ten instructions.
extension UnsafePointer<Descriptor> {
  // Invariant: a slot is sixteen plain bytes, aligned to 4, and every value of them is one.
  /// The slot's first word: segment, offset.
  @inlinable public var place: UInt64 {
    @_noLocks get { UnsafeRawPointer(self).loadUnaligned(as: UInt64.self) }
  }
  /// The slot's second word: length, flags, tag.
  @inlinable public var rest: UInt64 {
    @_noLocks get { UnsafeRawPointer(self).loadUnaligned(fromByteOffset: 8, as: UInt64.self) }
  }
  /// Whether the slot is metadata.
  @inlinable public var isOffload: Bool {
    @_noLocks get { rest &>> 32 & UInt64(Descriptor.Flags.offload.rawValue) != 0 }
  }
}

extension UnsafeMutablePointer<Descriptor> {
  /// Writes a slot.
  /// - Parameters:
  ///   - place: segment, offset.
  ///   - rest: length, flags, tag.
  @inlinable @inline(__always) @_noLocks
  public func store(place: UInt64, rest: UInt64) {
    let bytes = UnsafeMutableRawPointer(self)
    bytes.storeBytes(of: place, as: UInt64.self)
    bytes.storeBytes(of: rest, toByteOffset: 8, as: UInt64.self)
  }
}

extension Descriptor {
  /// What ``position`` is of a slot whose first word this is.
  @inlinable @inline(__always) @_noLocks
  public static func position(of place: UInt64) -> UInt64 {
    (place & 0xffff_ffff) &* 1024 &+ place &>> 32
  }
}
