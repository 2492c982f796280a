/// Makes packets of a pool's segments (``Packet``), and counts what they share and what was copied of them. Owns the
/// segments. One thread; every packet is gone before its pool is.
public struct PacketPool: ~Copyable, @unchecked Sendable {
  // Invariant: points at an initialised state from init to deinit; packets, which deinit insists are gone, point at it too.
  @usableFromInline let state: UnsafeMutablePointer<PacketPoolState>

  /// - Parameter segments: are this pool's from now on.
  public init(_ segments: consuming SegmentPool) {
    state = .allocate(capacity: 1)
    state.initialize(to: PacketPoolState(segments: segments))
  }

  deinit {
    precondition(state.pointee.counts.packets == 0, "a packet has outlived its pool")
    state.deinitialize(count: 1)
    state.deallocate()
  }

  /// A packet in one new segment, whose bytes are whatever was there.
  /// - Parameters:
  ///   - byteCount: bytes of the packet; with the headroom 1 byte to 128 KiB.
  ///   - headroom: bytes that are kept free before them, for headers.
  /// - Returns: nil where no segment is large enough, or none is free.
  @inlinable @_noLocks
  public mutating func make(byteCount: Int, headroom: Int = 0) -> Packet? {
    precondition(byteCount >= 0 && headroom >= 0)
    guard let segment = state.pointee.segments.allocate(byteCount: byteCount &+ headroom) else {
      return nil
    }
    var packet = Packet(empty: state)
    packet.add(
      Descriptor(
        segment: segment.unit, offset: UInt32(truncatingIfNeeded: headroom),
        length: UInt32(truncatingIfNeeded: byteCount)))
    return packet
  }

  /// A packet of pieces that are in a burst already, such as those that a stack has filled itself. It takes over one
  /// reference to each piece's segment.
  /// - Parameters:
  ///   - burst: holds the packet's slots; metadata first, where it has any.
  ///   - first: the packet's first slot.
  ///   - last: its last one.
  /// - Returns: nil, and no reference is taken, where there are no pieces, more than ``Packet/maximumPieces``, metadata
  ///   that are none, or a piece that does not lie in one allocated segment.
  @inlinable
  public mutating func adopt(
    _ burst: borrowing Burst, from first: Int, through last: Int
  ) -> Packet? {
    var metadata = Packet.Metadata(tag: burst[first].tag)
    var start = first
    if burst[first].flags.contains(.offload) {
      guard let offload = Offload(burst[first]) else { return nil }
      metadata.offload = offload
      start &+= 1
    }
    let count = last &- start &+ 1
    if count < 1 || count > Packet.maximumPieces { return nil }
    for index in start...last where piece(burst[index]) == nil { return nil }
    var packet = Packet(empty: state)
    packet.metadata = metadata
    for index in start...last {
      if let piece = piece(burst[index]) { packet.add(piece) }
    }
    return packet
  }

  /// A slot's bytes from the first address of the segment that they lie in; nil where they lie in none.
  @inlinable
  func piece(_ slot: Descriptor) -> Descriptor? {
    if slot.flags.contains(.offload) { return nil }
    guard let segment = state.pointee.segments.segment(at: slot.position) else { return nil }
    let offset = slot.position &- UInt64(segment.unit) &* UInt64(Descriptor.unit)
    guard offset &+ UInt64(slot.length) <= UInt64(segment.byteCount),
      state.pointee.segments.holds(segment.unit)
    else { return nil }
    return Descriptor(
      segment: segment.unit, offset: UInt32(truncatingIfNeeded: offset), length: slot.length)
  }

  /// Packets that there are, and what was shared and copied.
  @inlinable public var counts: PacketCounts { state.pointee.counts }
  /// References to all segments together: 0 when everything has come back.
  @inlinable public var totalReferences: Int { state.pointee.segments.totalReferences }
  /// References to the segment that begins at a unit, 0 where it is free.
  public func references(to segment: UInt32) -> Int {
    state.pointee.segments.references(to: segment)
  }
  /// Free segments of a class.
  public func available(in sizeClass: Int) -> Int {
    state.pointee.segments.available(in: sizeClass)
  }
}

/// What a ``PacketPool`` has counted. A plain value; any thread.
@frozen
public struct PacketCounts: BitwiseCopyable, Sendable, Equatable {
  /// Packets that there are now, clones among them.
  public var packets = 0
  /// Clones that were ever made.
  public var clones: UInt64 = 0
  /// Segments that were copied so that one packet alone could write.
  public var copiedSegments: UInt64 = 0
  /// The bytes of those copies.
  public var copiedBytes: UInt64 = 0
  /// All zero.
  @inlinable public init() {}
}

/// What all packets of a pool have in common.
@usableFromInline
struct PacketPoolState: ~Copyable {
  @usableFromInline var segments: SegmentPool
  @usableFromInline var counts = PacketCounts()

  init(segments: consuming SegmentPool) { self.segments = segments }
}
