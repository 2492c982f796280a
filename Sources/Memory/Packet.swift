/// A packet of a stack or a stage: some pieces of its pool's segments, and metadata of its own. It has one reference to
/// the segment of each piece, and gives them back when it goes away.
///
/// A clone shares the bytes and nothing else: what one of them trims, prepends or says in its metadata the other does not
/// see. Bytes that are shared are never written: ``makeWritable(_:)`` copies them first, where a writer asks for it.
/// Allocates nothing but segments. One thread: the pool's.
@frozen
public struct Packet: ~Copyable {
  /// What is said of a packet's bytes. Each packet has its own.
  @frozen
  public struct Metadata: BitwiseCopyable, Sendable, Equatable {
    /// Chosen by who sends the packet.
    public var tag: UInt16
    /// Bytes from the packet's first to its network header.
    public var networkStart: Int32
    /// Bytes from the packet's first to its transport header.
    public var transportStart: Int32
    /// What is left to the device; its own tag is not looked at.
    public var offload: Offload

    /// - Parameters:
    ///   - tag: chosen by who sends.
    ///   - networkStart: bytes from the packet's first.
    ///   - transportStart: the same.
    ///   - offload: what is left to the device.
    @inlinable @_noLocks
    public init(
      tag: UInt16 = 0, networkStart: Int32 = 0, transportStart: Int32 = 0,
      offload: Offload = Offload()
    ) {
      self.tag = tag
      self.networkStart = networkStart
      self.transportStart = transportStart
      self.offload = offload
    }

    /// The packet's first byte is another one now: `distance` bytes further on.
    @inlinable @_noLocks
    mutating func move(by distance: Int) {
      networkStart &-= Int32(truncatingIfNeeded: distance)
      transportStart &-= Int32(truncatingIfNeeded: distance)
      if offload.needsChecksum {
        offload.checksumStart &-= UInt16(truncatingIfNeeded: distance)
      }
      if offload.headerLength != 0 {
        offload.headerLength &-= UInt16(truncatingIfNeeded: distance)
      }
    }
  }

  /// The most pieces that a packet has. They lie in the packet itself.
  @inlinable public static var maximumPieces: Int { @_noLocks get { 8 } }

  // Invariant: points at the pool's state, which outlives its packets.
  @usableFromInline let pool: UnsafeMutablePointer<PacketPoolState>
  // Invariant: the first `pieceCount` name bytes inside a segment of the pool to which this packet has one reference for
  // each piece.
  @usableFromInline var pieces = InlineArray<8, Descriptor>(repeating: Descriptor(segment: 0))
  @usableFromInline var used = 0
  @usableFromInline var bytes = 0
  /// What is said of the bytes.
  public var metadata = Metadata()

  @inlinable @_noLocks
  init(empty pool: UnsafeMutablePointer<PacketPoolState>) {
    self.pool = pool
    pool.pointee.counts.packets &+= 1
  }

  @inlinable
  deinit {
    for index in 0..<used { pool.pointee.segments.release(pieces[index].segment) }
    pool.pointee.counts.packets &-= 1
  }

  /// Pieces.
  @inlinable public var pieceCount: Int { @_noLocks get { used } }
  /// Bytes of all pieces.
  @inlinable public var byteCount: Int { @_noLocks get { bytes } }

  /// A piece's place and length; one that there is not traps.
  @inlinable
  public func piece(_ index: Int) -> Descriptor {
    precondition(index >= 0 && index < used)
    return pieces[index]
  }

  /// Adds a piece at the end, whose reference is the packet's from now on.
  @inlinable @_noLocks
  mutating func add(_ piece: Descriptor) {
    precondition(used < Self.maximumPieces)
    pieces[used] = piece
    used &+= 1
    bytes &+= Int(piece.length)
  }

  /// Another packet of the same bytes: one more reference to each piece's segment, and no byte copied.
  @inlinable @_noLocks
  public borrowing func clone() -> Packet {
    var other = Packet(empty: pool)
    for index in 0..<used {
      pool.pointee.segments.retain(pieces[index].segment)
      other.add(pieces[index])
    }
    other.metadata = metadata
    pool.pointee.counts.clones &+= 1
    return other
  }

  // MARK: Which bytes are the packet's

  /// Drops bytes at the front, of which there must be as many. Segments that lie wholly in them are let go.
  @inlinable @_noLocks
  public mutating func removeFirst(_ count: Int) {
    precondition(count >= 0 && count <= bytes)
    bytes &-= count
    metadata.move(by: count)
    var left = count
    var gone = 0
    while gone < used && Int(pieces[gone].length) <= left && left > 0 {
      left &-= Int(pieces[gone].length)
      pool.pointee.segments.release(pieces[gone].segment)
      gone &+= 1
    }
    if gone > 0 {
      for index in gone..<used { pieces[index &- gone] = pieces[index] }
      used &-= gone
    }
    if left > 0 {
      pieces[0].offset &+= UInt32(truncatingIfNeeded: left)
      pieces[0].length &-= UInt32(truncatingIfNeeded: left)
    }
  }

  /// Drops bytes at the end, of which there must be as many. Segments that lie wholly in them are let go.
  @inlinable @_noLocks
  public mutating func removeLast(_ count: Int) {
    precondition(count >= 0 && count <= bytes)
    bytes &-= count
    var left = count
    while left > 0 {
      let length = Int(pieces[used &- 1].length)
      if length > left {
        pieces[used &- 1].length &-= UInt32(truncatingIfNeeded: left)
        return
      }
      left &-= length
      used &-= 1
      pool.pointee.segments.release(pieces[used].segment)
    }
  }

  /// Adds bytes at the front, whatever they are: in the first segment where the packet alone has it and there is space,
  /// otherwise as a piece of its own.
  /// - Parameter count: 1 byte to 64 KiB.
  /// - Returns: whether there was a place for them; nothing has changed where not.
  @inlinable @_noLocks
  public mutating func prepend(_ count: Int) -> Bool {
    precondition(count > 0 && count <= 65536)
    let length = UInt32(truncatingIfNeeded: count)
    if used > 0 && pieces[0].offset >= length
      && pool.pointee.segments.isAlone(pieces[0].segment)
    {
      pieces[0].offset &-= length
      pieces[0].length &+= length
    } else {
      guard used < Self.maximumPieces,
        let segment = pool.pointee.segments.allocate(byteCount: count)
      else { return false }
      for index in (0..<used).reversed() { pieces[index &+ 1] = pieces[index] }
      // At the segment's end: further headers go before it.
      pieces[0] = Descriptor(
        segment: segment.unit,
        offset: UInt32(truncatingIfNeeded: segment.byteCount &- count) & ~63, length: length)
      used &+= 1
    }
    bytes &+= count
    metadata.move(by: 0 &- count)
    return true
  }

  /// Adds all of another packet's bytes at the end; its metadata are lost. Together they have at most
  /// ``maximumPieces``, and both are of one pool.
  @inlinable @_noLocks
  public mutating func append(_ other: consuming Packet) {
    precondition(other.pool == pool && used &+ other.used <= Self.maximumPieces)
    for index in 0..<other.used { add(other.pieces[index]) }
    // Its references are this packet's now.
    other.used = 0
  }

  // MARK: To be sent

  /// Slots that the packet takes in a burst.
  @inlinable
  public var slotCount: Int { asksForNothing ? used : used &+ 1 }

  @inlinable var asksForNothing: Bool {
    !metadata.offload.needsChecksum && metadata.offload.segmentation == .none
  }

  /// Appends the packet's slots, for which the burst has room. Their bytes stay the packet's: it is kept until the device
  /// has done with them.
  @inlinable
  public borrowing func append(to burst: inout Burst) {
    precondition(used > 0 && burst.room >= slotCount)
    if !asksForNothing {
      var offload = metadata.offload
      offload.tag = metadata.tag
      burst.append(offload.slot)
    }
    for index in 0..<used {
      var slot = pieces[index]
      slot.tag = metadata.tag
      if index &+ 1 < used { slot.flags = .more }
      burst.append(slot)
    }
  }
}
