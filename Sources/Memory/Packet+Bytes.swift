/// A packet's bytes. They are written only where no other packet has them.
extension Packet {
  /// The bytes of a piece, where they lie; a piece that there is not traps.
  @inlinable @_lifetime(borrow self)
  public func bytes(ofPiece index: Int) -> RawSpan {
    let piece = self.piece(index)
    let start = UnsafeRawPointer(pool.pointee.segments.arena + Int(piece.position))
    // Invariant: the piece lies inside a segment that stays allocated as long as the packet has its reference.
    let span = RawSpan(_unsafeStart: start, byteCount: Int(piece.length))
    return _overrideLifetime(span, borrowing: self)
  }

  /// The bytes of a piece, to be written where they lie; a piece that there is not, or that another packet has too, traps
  /// (``makeWritable(_:)``).
  @inlinable @_lifetime(&self)
  public mutating func mutableBytes(ofPiece index: Int) -> MutableRawSpan {
    let piece = self.piece(index)
    precondition(!isShared(piece: index), "bytes of two packets are not written")
    // Invariant: as above; and nobody else has a reference to the segment.
    let span = MutableRawSpan(
      _unsafeStart: pool.pointee.segments.arena + Int(piece.position),
      byteCount: Int(piece.length))
    return _overrideLifetime(span, mutating: &self)
  }

  /// Whether any of these bytes lie in a segment that another packet has too, or are the packet's own in two places.
  @inlinable @_noLocks
  public func isShared(_ range: Range<Int>) -> Bool {
    var start = 0
    for index in 0..<used {
      let end = start &+ Int(pieces[index].length)
      if start < range.upperBound && end > range.lowerBound && isShared(piece: index) {
        return true
      }
      start = end
    }
    return false
  }

  /// Sees to it that these bytes are the packet's alone: each piece that has any of them and whose segment another packet
  /// has too is copied to a segment of its own, whole. All others stay where they are. The copies are counted
  /// (``PacketCounts``).
  /// - Parameter range: inside the packet.
  /// - Returns: false where no segment is free; the bytes are the same, and some pieces may have been copied.
  @inlinable @_noLocks
  public mutating func makeWritable(_ range: Range<Int>) -> Bool {
    precondition(range.lowerBound >= 0 && range.upperBound <= bytes)
    var start = 0
    for index in 0..<used {
      let end = start &+ Int(pieces[index].length)
      if start < range.upperBound && end > range.lowerBound && isShared(piece: index)
        && !copy(piece: index)
      {
        return false
      }
      start = end
    }
    return true
  }

  /// Writes bytes that are the packet's alone; where they are shared, or outside the packet, it traps.
  /// - Parameters:
  ///   - source: what is written.
  ///   - position: bytes from the packet's first.
  @inlinable
  public mutating func write(_ source: RawSpan, at position: Int) {
    let count = source.byteCount
    precondition(position >= 0 && position &+ count <= bytes)
    let range = position..<position &+ count
    let isWritable = !isShared(range)
    precondition(isWritable, "bytes of two packets are not written")
    // Invariant: it is read only here, in the ranges that were checked above.
    guard let base = source.withUnsafeBytes({ $0.baseAddress }) else { return }
    let arena = pool.pointee.segments.arena
    var start = 0
    for index in 0..<used {
      let end = start &+ Int(pieces[index].length)
      let from = max(start, range.lowerBound)
      let upTo = min(end, range.upperBound)
      if from < upTo {
        let target = arena + (Int(pieces[index].position) &+ from &- start)
        target.copyMemory(from: base + (from &- position), byteCount: upTo &- from)
      }
      start = end
    }
  }

  @inlinable @_noLocks
  func isShared(piece index: Int) -> Bool {
    let piece = pieces[index]
    if pool.pointee.segments.isAlone(piece.segment) { return false }
    // A packet may have a segment twice. Of the same bytes, each piece is another's to the other.
    var own = 1
    for other in 0..<used where other != index && pieces[other].segment == piece.segment {
      let start = pieces[other].offset
      if start >= piece.offset &+ piece.length || start &+ pieces[other].length <= piece.offset {
        own &+= 1
      }
    }
    return !pool.pointee.segments.has(own, referencesTo: piece.segment)
  }

  /// Keeps what is free before the first piece, up to a bound, for headers that come later.
  @inlinable @_noLocks
  mutating func copy(piece index: Int) -> Bool {
    let piece = pieces[index]
    var headroom: UInt32 = 0
    if index == 0 { headroom = piece.offset < 128 ? piece.offset : 128 }
    guard
      let segment = pool.pointee.segments.allocate(byteCount: Int(headroom &+ piece.length))
    else { return false }
    let arena = pool.pointee.segments.arena
    pieces[index] = Descriptor(segment: segment.unit, offset: headroom, length: piece.length)
    // Invariant: both lie inside segments to which this packet has a reference.
    let target = arena + (Int(segment.unit) &* Descriptor.unit &+ Int(headroom))
    target.copyMemory(from: arena + Int(piece.position), byteCount: Int(piece.length))
    pool.pointee.segments.release(piece.segment)
    pool.pointee.counts.copiedSegments &+= 1
    pool.pointee.counts.copiedBytes &+= UInt64(piece.length)
    return true
  }
}
