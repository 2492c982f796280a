import Driver
import Memory
import Rings
import Virtio

/// What the device wrote before a packet (5.1.6), copied once.
struct ReceiveHeader {
  private let words: (UInt32, UInt32, UInt32)

  init() { words = (0, 0, 0) }

  @inline(__always)
  init(copying memory: DMARange, at position: Int) {
    // A buffer begins at a multiple of four, not always of eight.
    words = memory.loadThree32(at: position)
  }

  var flags: UInt8 { UInt8(truncatingIfNeeded: words.0) }
  var segmentation: UInt8 { UInt8(truncatingIfNeeded: words.0 &>> 8) }
  var headerLength: UInt16 { UInt16(truncatingIfNeeded: words.0 &>> 16) }
  var segmentSize: UInt16 { UInt16(truncatingIfNeeded: words.1) }
  var checksumStart: UInt16 { UInt16(truncatingIfNeeded: words.1 &>> 16) }
  var checksumOffset: UInt16 { UInt16(truncatingIfNeeded: words.2) }
  var bufferCount: UInt16 { UInt16(truncatingIfNeeded: words.2 &>> 16) }

  /// What a header must be like for its packet to be one buffer that needs nothing else said: known once features are.
  struct Plainness {
    /// Where the number of buffers means anything, it must be 1.
    let countMask: UInt32
    /// DATA_VALID, where it means anything.
    let validMask: UInt32

    init(_ features: VirtioFeatures) {
      countMask = features.contains(.mergeableBuffers) ? 0xffff_0000 : 0
      validMask = features.contains(.guestChecksum) ? UInt32(VirtioNetHeader.dataValid) : 0
    }
  }

  /// The words of a header by which nearly every packet is known to be plain. Of one that is not, all is read anew, and
  /// nothing that was seen here is used.
  struct Look {
    private let first: UInt32
    private let last: UInt32

    @inline(__always)
    init(_ memory: DMARange, at place: UInt64) {
      (first, last) = memory.loadFirstAndLast32(
        ofTwelveAt: Int(truncatingIfNeeded: Descriptor.position(of: place)))
    }

    /// No flag but DATA_VALID, no segmentation, one buffer.
    @inline(__always)
    func isPlain(_ plainness: Plainness) -> Bool {
      let flags = first & (0xffff & ~UInt32(VirtioNetHeader.dataValid))
      return flags | ((last ^ 1 &<< 16) & plainness.countMask) == 0
    }

    /// Of a plain header: whether the device has checked the checksum, as flags of a slot.
    @inline(__always)
    func checksumFlags(_ plainness: Plainness) -> UInt64 {
      // The one flag is twice the other.
      UInt64(first & plainness.validMask) &<< 1
    }
  }

  /// What goes on to the host of a packet with so many bytes.
  /// - Returns: nil where what the header says does not fit the packet.
  @inline(__always)
  func metadata(byteCount: Int, _ features: VirtioFeatures) -> Offload? {
    var metadata = Offload()
    if byteCount < minimumFrame { return nil }
    // 5.1.6.4.2: without the feature the flags mean nothing.
    if features.contains(.guestChecksum) && flags & VirtioNetHeader.needsChecksum != 0 {
      let end = Int(checksumStart) &+ Int(checksumOffset) &+ 2
      if end > byteCount { return nil }
      if Int(checksumStart) < minimumFrame { return nil }
      metadata.needsChecksum = true
      metadata.checksumStart = checksumStart
      metadata.checksumOffset = checksumOffset
    }
    switch segmentation & ~VirtioNetHeader.segmentationECN {
    case VirtioNetHeader.segmentationNone: return metadata
    case VirtioNetHeader.segmentationTCP4 where features.contains(.guestTSO4):
      metadata.segmentation = .tcp4
    case VirtioNetHeader.segmentationTCP6 where features.contains(.guestTSO6):
      metadata.segmentation = .tcp6
    default: return nil
    }
    // Without IP and TCP headers there is nothing to cut.
    let network = metadata.segmentation == .tcp4 ? 20 : 40
    var headers = minimumFrame &+ network &+ tcpHeader
    if metadata.needsChecksum {
      if checksumOffset != tcpChecksum { return nil }
      headers = max(headers, Int(checksumStart) &+ tcpHeader)
    }
    if segmentSize == 0 || headers > byteCount { return nil }
    metadata.segmentSize = segmentSize
    // A hint (5.1.6.4.2): one that cannot be true is left out.
    metadata.headerLength =
      (headers...byteCount).contains(Int(headerLength)) ? headerLength : 0
    return metadata
  }
}

private let maximumFrame = 65535 + 18
private let minimumFrame = 14
/// Bytes of a TCP header, and where its checksum lies in it (RFC 9293, 3.1).
private let tcpHeader = 20
private let tcpChecksum: UInt16 = 16

extension RingPair where Ring: ~Copyable {
  /// Used receive buffers become packets: the header is taken off, checked, and what it says goes on as metadata.
  @inline(__always)
  mutating func receive(into burst: inout Burst) throws(DriverError) {
    do throws(RingError) {
      // A device that goes on filling buffers that are refused must not keep its driver here.
      let refused = statistics.receiveErrors
      // Each buffer becomes at most two slots, and what is in `partial` goes before.
      while burst.room >= Descriptor.maximumSlots
        && statistics.receiveErrors &- refused < UInt64(Descriptor.maximumSlots)
      {
        let limit = (burst.room &- partial.count) &>> 1
        let isMore =
          missing == 0
          ? try takePlain(into: &burst, limit: limit) : try takeFurther(into: &burst)
        if !isMore { break }
      }
    } catch {
      throw .ring(queue: index &* 2, error)
    }
    // Buffers of packets that were refused went straight back to the ring.
    showReceive()
  }

  /// Packets of one buffer that need nothing said, until there is one of another kind, whose first buffer is taken too.
  /// - Returns: whether there may be more.
  @inline(__always)
  private mutating func takePlain(into burst: inout Burst, limit: Int) throws(RingError) -> Bool {
    let (arena, plainness) = (arena, plainness)
    let slots = burst.end
    var slot = slots
    var bytes: UInt64 = 0
    var isOther = false
    var chains = try receiveRing.usedChains(limit: limit)
    while chains.next(usually: 1) {
      let length = chains.length &- UInt32(VirtioNetHeader.byteCount)
      let look = ReceiveHeader.Look(arena, at: chains.place)
      // Both ends in one comparison.
      if length &- UInt32(minimumFrame) > UInt32(maximumFrame - minimumFrame)
        || !look.isPlain(plainness)
      {
        slot.store(place: chains.place, rest: UInt64(chains.length))
        isOther = true
        break
      }
      // An offset lies inside its segment: the sum stays in its half of the word.
      slot.store(
        place: chains.place &+ UInt64(VirtioNetHeader.byteCount) &<< 32,
        rest: UInt64(length) | look.checksumFlags(plainness) &<< 32)
      slot += 1
      bytes &+= UInt64(length)
    }
    burst.append(written: slot - slots)
    statistics.receivedPackets &+= UInt64(truncatingIfNeeded: slot - slots)
    statistics.receivedBytes &+= bytes
    let isMore = try receiveRing.take(chains)
    if isOther { take(slot.pointee, into: &burst) }
    return isMore || isOther
  }

  /// A further buffer of a packet.
  /// - Returns: whether there was one.
  @inline(never)
  private mutating func takeFurther(into burst: inout Burst) throws(RingError) -> Bool {
    try receiveRing.takeUsed(into: &further, limit: 1)
    if further.isEmpty { return false }
    let buffer = further[0]
    further.removeAll()
    take(buffer, into: &burst)
    return true
  }

  /// Any used buffer: the first of a packet, or a further one (5.1.6.4).
  @inline(never)
  private mutating func take(_ buffer: Descriptor, into burst: inout Burst) {
    if missing == 0 {
      hasEmptyPiece = false
      guard buffer.length > UInt32(VirtioNetHeader.byteCount) else {
        statistics.receiveErrors &+= 1
        repost(buffer)
        return
      }
      partialHeader = ReceiveHeader(copying: arena, at: Int(buffer.position))
      var first = buffer
      first.offset &+= UInt32(VirtioNetHeader.byteCount)
      first.length &-= UInt32(VirtioNetHeader.byteCount)
      partialBytes = Int(first.length)
      missing = features.contains(.mergeableBuffers) ? Int(partialHeader.bufferCount) &- 1 : 0
      if missing < 0 || missing > Descriptor.maximumSlots &- 2 {
        missing = 0
        statistics.receiveErrors &+= 1
        repost(first)
        return
      }
      partial.append(first)
    } else {
      missing &-= 1
      partialBytes &+= Int(buffer.length)
      if buffer.length == 0 { hasEmptyPiece = true }
      partial.append(buffer)
    }
    if missing > 0 { return }
    if let metadata = partialHeader.metadata(byteCount: partialBytes, features),
      partialBytes <= maximumFrame, !hasEmptyPiece
    {
      deliver(metadata, into: &burst)
    } else {
      statistics.receiveErrors &+= 1
      for piece in 0..<partial.count { repost(partial[piece]) }
    }
    partial.removeAll()
  }

  @inline(__always)
  private mutating func deliver(_ metadata: Offload, into burst: inout Burst) {
    let hasMetadata = metadata.needsChecksum || metadata.segmentation != .none
    if hasMetadata { burst.append(metadata.slot) }
    let isValid =
      features.contains(.guestChecksum)
      && partialHeader.flags & VirtioNetHeader.dataValid != 0 && !metadata.needsChecksum
    let flags = isValid ? Descriptor.Flags.checksumValid : Descriptor.Flags(rawValue: 0)
    let last = partial.count &- 1
    for piece in 0...last {
      var slot = partial[piece]
      slot.flags = piece == last ? flags : flags.union(.more)
      burst.append(slot)
    }
    statistics.receivedPackets &+= 1
    statistics.receivedBytes &+= UInt64(partialBytes)
  }

  /// A buffer that nobody gets goes back to the device, whole. Its bytes begin where they did when it was lent: as
  /// far beyond a multiple of 64 as all do, so that what was taken off can be put back.
  @inline(__always)
  private mutating func repost(_ piece: Descriptor) {
    let start = (piece.offset &- receiveBufferLead) & ~63 &+ receiveBufferLead
    reposted.append(
      Descriptor(
        segment: piece.segment, offset: start, length: receiveBufferEnd &- start))
    receiveRing.addWritable(reposted, count: 1, base: arena.iova)
    reposted.removeAll()
  }
}
