import Driver
import Memory
import Rings
import Virtio

/// What the device wrote before a packet, copied once.
struct ReceiveHeader {
  var flags: UInt8 = 0
  var segmentation: UInt8 = 0
  var headerLength: UInt16 = 0
  var segmentSize: UInt16 = 0
  var checksumStart: UInt16 = 0
  var checksumOffset: UInt16 = 0
  var bufferCount: UInt16 = 0

  init() {}

  @inline(__always)
  init(copying memory: DMARange, at position: Int) {
    // A buffer begins at a multiple of four, not always of eight.
    let low =
      UInt64(memory.load32(at: position)) | UInt64(memory.load32(at: position &+ 4)) &<< 32
    let high = memory.load32(at: position &+ 8)
    flags = UInt8(truncatingIfNeeded: low)
    segmentation = UInt8(truncatingIfNeeded: low &>> 8)
    headerLength = UInt16(truncatingIfNeeded: low &>> 16)
    segmentSize = UInt16(truncatingIfNeeded: low &>> 32)
    checksumStart = UInt16(truncatingIfNeeded: low &>> 48)
    checksumOffset = UInt16(truncatingIfNeeded: high)
    bufferCount = UInt16(truncatingIfNeeded: high &>> 16)
  }

  /// What goes on to the host of a packet with so many bytes.
  /// - Returns: nil where what the header says does not fit the packet.
  @inline(__always)
  func metadata(byteCount: Int, _ features: VirtioFeatures) -> Offload? {
    var metadata = Offload()
    if byteCount < 14 { return nil }
    // 5.1.6.4.2: without the feature the flags mean nothing.
    if features.contains(.guestChecksum) && flags & VirtioNetHeader.needsChecksum != 0 {
      let end = Int(checksumStart) &+ Int(checksumOffset) &+ 2
      if end > byteCount { return nil }
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
    if segmentSize == 0 { return nil }
    metadata.segmentSize = segmentSize
    // A hint (5.1.6.4.2): one that cannot be true is left out.
    metadata.headerLength = Int(headerLength) <= byteCount ? headerLength : 0
    return metadata
  }
}

private let maximumFrame = 65535 + 18

extension VirtioNetQueuePair {
  /// Used receive buffers become packets: the header is taken off, checked, and what it says goes on as metadata.
  @_noLocks
  public mutating func receive(into burst: inout Burst) throws(DriverError) {
    do throws(RingError) {
      var count = try receiveRing.usedCount()
      if count == 0 { return }
      while count > 0 && burst.room >= Descriptor.maximumSlots {
        count &-= 1
        let used = try receiveRing.takeUsed()
        take(Descriptor(cookie: used.cookie, length: used.byteCount), into: &burst)
      }
    } catch {
      throw .ring(queue: index &* 2, error)
    }
    // Buffers of packets that were refused went straight back to the ring.
    showReceive()
  }

  /// One used buffer: the first of a packet, or a further one (5.1.6.4).
  @inline(__always)
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

  /// A buffer that nobody gets goes back to the device, whole. Its bytes begin where they did when it was lent: at
  /// a multiple of 64 in its segment, so that what was taken off can be put back.
  private mutating func repost(_ piece: Descriptor) {
    let start = piece.offset & ~63
    post(
      Descriptor(
        segment: piece.segment, offset: start, length: receiveBufferEnd &- start))
  }
}
