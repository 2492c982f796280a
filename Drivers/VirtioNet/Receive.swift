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
}

extension VirtioNetQueuePair {
  /// Used receive buffers become packets: the header is taken off, checked, and what it says goes on as metadata.
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
  private mutating func take(_ buffer: Descriptor, into burst: inout Burst) {
    if missing == 0 {
      partialHeader = ReceiveHeader()
      partialBytes = 0
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
      partial.append(buffer)
    }
    if missing > 0 { return }
    if let metadata = checkedMetadata(), partialBytes <= maximumFrame, !hasEmptyPiece() {
      deliver(metadata, into: &burst)
    } else {
      statistics.receiveErrors &+= 1
      for piece in 0..<partial.count { repost(partial[piece]) }
    }
    partial.removeAll()
  }

  private var maximumFrame: Int { 65535 + 18 }

  private func hasEmptyPiece() -> Bool {
    for piece in 0..<partial.count where partial[piece].length == 0 { return true }
    return false
  }

  /// - Returns: nil where what the header says does not fit the packet.
  private func checkedMetadata() -> Offload? {
    let header = partialHeader
    var metadata = Offload()
    if partialBytes < 14 { return nil }
    // 5.1.6.4.2: without the feature the flags mean nothing.
    if features.contains(.guestChecksum) && header.flags & VirtioNetHeader.needsChecksum != 0 {
      let end = Int(header.checksumStart) &+ Int(header.checksumOffset) &+ 2
      if end > partialBytes { return nil }
      metadata.needsChecksum = true
      metadata.checksumStart = header.checksumStart
      metadata.checksumOffset = header.checksumOffset
    }
    switch header.segmentation & ~VirtioNetHeader.segmentationECN {
    case VirtioNetHeader.segmentationNone: return metadata
    case VirtioNetHeader.segmentationTCP4 where features.contains(.guestTSO4):
      metadata.segmentation = .tcp4
    case VirtioNetHeader.segmentationTCP6 where features.contains(.guestTSO6):
      metadata.segmentation = .tcp6
    default: return nil
    }
    if header.segmentSize == 0 { return nil }
    metadata.segmentSize = header.segmentSize
    // A hint (5.1.6.4.2): one that cannot be true is left out.
    metadata.headerLength = Int(header.headerLength) <= partialBytes ? header.headerLength : 0
    return metadata
  }

  private mutating func deliver(_ metadata: Offload, into burst: inout Burst) {
    let hasMetadata = metadata.needsChecksum || metadata.segmentation != .none
    if hasMetadata { burst.append(metadata.slot) }
    let isValid =
      features.contains(.guestChecksum)
      && partialHeader.flags & VirtioNetHeader.dataValid != 0 && !metadata.needsChecksum
    let last = partial.count &- 1
    for piece in 0...last {
      var slot = partial[piece]
      slot.flags = piece == last ? [] : .more
      if isValid { slot.flags.insert(.checksumValid) }
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
