/// A segment that an application fills and sends from. Holds one reference, which goes with it: what has been written to a
/// connection stays until it is acknowledged, with or without the buffer. One thread.
@frozen
public struct SendBuffer: ~Copyable {
  // Invariant: the pool outlives its buffers; it counts them.
  @usableFromInline let state: UnsafeMutablePointer<SendBufferState>
  @usableFromInline let unit: UInt32
  /// The buffer's first byte: the data address that is written. Bytes that have been written must not change until they
  /// are acknowledged: the device reads them here.
  public let address: UnsafeMutableRawPointer
  /// Bytes: the segment's size, at least what was asked for.
  public let byteCount: Int

  @inlinable
  init(_ state: UnsafeMutablePointer<SendBufferState>, _ segment: Segment) {
    self.state = state
    unit = segment.unit
    address = state.pointee.pool.address(of: segment)
    byteCount = segment.byteCount
    state.pointee.users += 1
  }

  @inlinable
  deinit {
    state.pointee.pool.release(unit)
    state.pointee.users -= 1
  }

  /// The buffer's bytes, checked at each access.
  public var bytes: MutableRawSpan {
    @_lifetime(&self)
    mutating get {
      let span = MutableRawSpan(_unsafeStart: address, byteCount: byteCount)
      return _overrideLifetime(span, mutating: &self)
    }
  }
}
