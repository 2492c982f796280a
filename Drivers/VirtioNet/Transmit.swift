import Driver
import Memory
import Rings
import Virtio

extension VirtioNetQueuePair {
  /// Descriptors in an indirect table.
  static var tableEntries: Int { 16 }

  /// Packets become chains: the header that this driver wrote, then the pieces in place.
  @_noLocks
  public mutating func transmit(_ burst: inout Burst) throws(DriverError) {
    if transmitRing.isBroken { return }
    let count = burst.count
    var at = 0
    while at < count {
      // Whoever filled the burst delivers whole packets only.
      guard let end = burst.endOfPacket(from: at) else { break }
      let pieces = burst[at].flags.contains(.offload) ? end &- at : end &- at &+ 1
      if transmitRing.room < pieces &+ 1 && pieces < transmitRing.size { break }
      if refused.room == 0 { break }
      send(&burst, at, end, pieces)
      at = end &+ 1
    }
    if at == 0 { return }
    burst.removeFirst(at)
    transmitRing.publish()
    if transmitRing.shouldNotify() {
      transmitDoorbell.ring()
      statistics.doorbells &+= 1
    }
  }

  private mutating func send(_ burst: inout Burst, _ at: Int, _ end: Int, _ pieces: Int) {
    let tag = burst[at].tag
    let first = end &- pieces &+ 1
    let bytes = burst.byteCount(from: first, through: end)
    guard let metadata = Self.metadata(burst[at], byteCount: bytes, features), pieces > 0,
      bytes >= 14, bytes <= 65535 + 18, pieces < transmitRing.size
    else {
      statistics.sendErrors &+= 1
      refused.append(Descriptor(segment: 0, tag: tag))
      return
    }
    let head = transmitRing.nextHead
    Self.write(metadata, to: headers, at: head)
    let header = headers.iova &+ UInt64(head &* 16)
    if let tables, pieces > 1, pieces < Self.tableEntries {
      let offset = head &* Self.tableEntries &* SplitRing.descriptorBytes
      Self.entry(tables, offset, header, UInt32(VirtioNetHeader.byteCount), next: 1)
      for piece in 0..<pieces {
        let slot = burst[first &+ piece]
        let isLast = piece == pieces &- 1
        Self.entry(
          tables, offset &+ (piece &+ 1) &* 16, arena.iova &+ slot.position, slot.length,
          next: isLast ? 0 : UInt16(piece &+ 2))
      }
      transmitRing.addIndirect(
        iova: tables.iova &+ UInt64(offset), descriptors: pieces &+ 1, cookie: UInt64(tag))
    } else {
      var chain = transmitRing.beginChain(
        iova: header, byteCount: UInt32(VirtioNetHeader.byteCount))
      for piece in 0..<pieces {
        let slot = burst[first &+ piece]
        transmitRing.extend(
          &chain, iova: arena.iova &+ slot.position, byteCount: slot.length)
      }
      transmitRing.finish(chain, cookie: UInt64(tag))
    }
    statistics.sentPackets &+= 1
    statistics.sentBytes &+= UInt64(bytes)
  }

  /// One descriptor of an indirect table; the last one has no next (0).
  @inline(__always)
  private static func entry(
    _ table: DMARange, _ at: Int, _ iova: UInt64, _ byteCount: UInt32, next: UInt16
  ) {
    table.store64(iova, at: at)
    let flags = next == 0 ? 0 : UInt64(SplitRing.next)
    table.store64(UInt64(byteCount) | flags &<< 32 | UInt64(next) &<< 48, at: at &+ 8)
  }

  /// - Returns: nil where the packet asks for what was not negotiated or does not fit it.
  private static func metadata(
    _ slot: Descriptor, byteCount: Int, _ features: VirtioFeatures
  ) -> Offload? {
    if !slot.flags.contains(.offload) { return Offload() }
    guard let metadata = Offload(slot) else { return nil }
    if metadata.needsChecksum {
      let end = Int(metadata.checksumStart) &+ Int(metadata.checksumOffset) &+ 2
      if !features.contains(.checksum) || end > byteCount { return nil }
    }
    switch metadata.segmentation {
    case .none: return metadata
    case .tcp4: if !features.contains(.hostTSO4) { return nil }
    case .tcp6: if !features.contains(.hostTSO6) { return nil }
    case .udp: return nil
    }
    // 5.1.6.2.1: segmentation needs the checksum, a size and a header length inside the packet.
    if !metadata.needsChecksum || metadata.segmentSize == 0
      || Int(metadata.headerLength) > byteCount
    {
      return nil
    }
    return metadata
  }

  /// The virtio_net_hdr of the chain that begins with descriptor `head`.
  @inline(__always)
  private static func write(_ metadata: Offload, to headers: DMARange, at head: Int) {
    let flags = metadata.needsChecksum ? UInt64(VirtioNetHeader.needsChecksum) : 0
    headers.store64(
      flags | UInt64(metadata.segmentation.rawValue) &<< 8
        | UInt64(metadata.headerLength) &<< 16 | UInt64(metadata.segmentSize) &<< 32
        | UInt64(metadata.checksumStart) &<< 48, at: head &* 16)
    headers.store32(UInt32(metadata.checksumOffset), at: head &* 16 &+ 8)
  }
}
