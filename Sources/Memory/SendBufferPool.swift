/// Memory that applications send from without a copy: segments of a ``SegmentPool`` as ``SendBuffer``s.
///
/// A segment is free when nobody has a reference to it: not the application's buffer, no entry of a connection
/// (``PendingEntries``), no packet that the device still reads. Allocation never waits: where nothing is free it throws,
/// or the caller leaves word and is called when segments have come back. One thread.
public struct SendBufferPool: ~Copyable {
  // Invariant: initialised until deinit. Buffers and entries that point to it have gone by then: they are counted.
  @usableFromInline let state: UnsafeMutablePointer<SendBufferState>

  /// - Parameter pool: is this one's from now on.
  public init(_ pool: consuming SegmentPool) {
    state = .allocate(capacity: 1)
    state.initialize(to: SendBufferState(pool))
  }

  deinit {
    // A defect of the application: it would reach memory that is gone.
    precondition(state.pointee.users == 0, "send buffers outlive their pool")
    state.deinitialize(count: 1)
    state.deallocate()
  }

  /// The largest buffer, in bytes; 0 where the pool has no segment.
  public var largestBuffer: Int { state.pointee.largestBuffer }

  /// What has been counted.
  public var counts: SendBufferCounts { state.pointee.counts }
  /// References to all segments together: 0 when everything has come back.
  public var totalReferences: Int { state.pointee.pool.totalReferences }
  /// Callers that wait.
  public var waitingCount: Int { state.pointee.waiting.count }
  /// Free segments of 1 KiB << `sizeClass`.
  public func available(in sizeClass: Int) -> Int { state.pointee.pool.available(in: sizeClass) }
  /// Segments of 1 KiB << index, free or not.
  public var segmentCounts: [Int] { state.pointee.pool.counts }
  /// References to the segment of an address, 0 where it is free; nil outside the pool.
  public func references(at address: UnsafeRawPointer) -> Int? {
    state.pointee.segment(at: address).map { state.pointee.pool.references(to: $0.unit) }
  }

  // MARK: Allocation

  /// A buffer of at least so many bytes: of the smallest size that fits, or of the next one that has any free. It takes
  /// no segment that somebody waits for.
  /// - Parameter byteCount: 1 to ``largestBuffer``.
  /// - Throws: ``SendBufferError/exhausted(needed:)`` or ``SendBufferError/badSize(needed:limit:)``.
  @inlinable
  public func allocate(byteCount: Int) throws(SendBufferError) -> SendBuffer {
    let sizeClass = try state.pointee.sizeClass(byteCount)
    if sizeClass < state.pointee.smallestAwaited, let segment = state.pointee.pool.take(sizeClass) {
      return SendBuffer(state, segment)
    }
    return try allocateLarger(sizeClass, byteCount)
  }

  @inline(never) @usableFromInline
  func allocateLarger(
    _ sizeClass: Int, _ byteCount: Int
  ) throws(SendBufferError) -> SendBuffer {
    let end = state.pointee.smallestAwaited
    if let segment = state.pointee.pool.allocate(from: sizeClass, below: end) {
      return SendBuffer(state, segment)
    }
    state.pointee.nothingLeft(sizeClass)
    // Nothing of the pool is being accessed now: the closure may use it.
    if state.pointee.takesExhaustion() { state.pointee.onExhausted?(byteCount) }
    throw .exhausted(needed: byteCount)
  }

  /// A buffer as ``allocate(byteCount:)`` makes it, now or later: `body` gets it at once, or from ``resumeWaiting()``.
  /// Segments go to whoever has waited longest among those that they are large enough for.
  /// - Returns: what ends the wait, for ``cancel(_:)``; nil where `body` has been called.
  /// - Throws: ``SendBufferError/badSize(needed:limit:)``.
  @discardableResult
  public func allocate(
    byteCount: Int, whenAvailable body: @escaping (consuming SendBuffer) -> Void
  ) throws(SendBufferError) -> SendBufferWait? {
    let buffer: SendBuffer
    do throws(SendBufferError) {
      buffer = try allocate(byteCount: byteCount)
    } catch {
      guard case .exhausted = error else { throw error }
      return state.pointee.wait(try state.pointee.sizeClass(byteCount), body)
    }
    body(buffer)
    return nil
  }

  /// Ends a wait; nothing where it is over.
  public func cancel(_ wait: SendBufferWait) { state.pointee.cancel(wait) }

  /// Gives what has come back to those that wait, and tells when nothing is lacking any more. Its owner calls it once a
  /// turn, never from within one of the pool's closures.
  /// - Returns: whether anybody was called.
  @discardableResult
  public func resumeWaiting() -> Bool {
    if !state.pointee.isExhausted { return false }
    var hasCalled = false
    // Those that begin to wait meanwhile come next time.
    for _ in 0..<state.pointee.waiting.count {
      guard let (body, segment) = state.pointee.serveNext() else { break }
      body(SendBuffer(state, segment))
      hasCalled = true
    }
    if state.pointee.takesEndOfExhaustion() {
      state.pointee.onAvailable?()
      hasCalled = true
    }
    return hasCalled
  }

  /// Is called with the bytes asked for when an allocation fails for the first time.
  public func onExhausted(_ body: @escaping (Int) -> Void) { state.pointee.onExhausted = body }
  /// Is called from ``resumeWaiting()`` when nobody waits any more and what was lacking is free.
  public func onAvailable(_ body: @escaping () -> Void) { state.pointee.onAvailable = body }

  // MARK: Size

  /// Where the pool's memory ends, in bytes from the arena's start.
  public var end: Int { state.pointee.pool.end }
  /// Whether segments have run out and have not come back.
  public var isExhausted: Bool { state.pointee.isExhausted }

  /// Takes the memory up to `end` into use; whoever waits gets of it at the next ``resumeWaiting()``.
  /// - Parameter end: in bytes from the arena's start, all of it mapped; no more than the pool's maximum.
  public func grow(to end: Int) {
    state.pointee.pool.grow(to: end)
    state.pointee.notePoolSize()
  }

  /// From now on hands out nothing that reaches beyond `end`.
  public func beginShrink(to end: Int) { state.pointee.pool.beginShrink(to: end) }
  /// Segments that are to be given up and that somebody still has.
  public var leavingCount: Int { state.pointee.pool.leavingCount }
  /// Where the pool could end now: behind it nobody has anything. Looks at every segment that is to be given up.
  public var freeEnd: Int { state.pointee.pool.freeEnd }

  /// Gives up what ``beginShrink(to:)`` has named: its memory may be unmapped.
  /// - Returns: false where somebody still has some of it; nothing has changed then.
  public func finishShrink() -> Bool {
    guard state.pointee.pool.finishShrink() else { return false }
    state.pointee.notePoolSize()
    return true
  }

  // MARK: Addresses

  /// Bytes that an application wants to send, by their address.
  /// - Throws: ``SendBufferError`` where they are not all in one segment that is in use.
  @inlinable
  public func range(
    at address: UnsafeRawPointer, byteCount: Int
  ) throws(SendBufferError) -> SendRange {
    try state.pointee.range(at: address, byteCount: byteCount)
  }

  // MARK: Packets

  /// A packet that lies at this place, in bytes from the arena's start, goes to the device: one more reference to its
  /// segment.
  /// - Returns: false where the pool has no segment there; nothing has changed then.
  @inlinable
  public func retainPacket(at position: UInt64) -> Bool {
    guard let segment = state.pointee.pool.segment(at: position) else { return false }
    state.pointee.pool.retain(segment.unit)
    return true
  }

  /// The device has done with it: one reference less. Nothing where the pool has no segment there.
  @inlinable
  public func releasePacket(at position: UInt64) {
    if let segment = state.pointee.pool.segment(at: position) {
      state.pointee.pool.release(segment.unit)
    }
  }
}
