import Driver
import Memory
import Rings
import Virtio

private let minimumFrame = 14
private let maximumFrame = 65535 + 18

extension RingPair where Ring: ~Copyable {
  /// Descriptors in an indirect table.
  static var tableEntries: Int { 16 }

  /// Packets become chains: a header that the sender cannot change, then the pieces in place.
  @inline(__always)
  mutating func transmit(_ burst: inout Burst) {
    if transmitRing.isBroken { return }
    let count = burst.count
    var next = 0
    while next < count {
      next = sendPlain(&burst, from: next)
      if next == count { break }
      let sent = send(&burst, next)
      if sent == 0 { break }
      next &+= sent
    }
    if next == 0 { return }
    burst.removeFirst(next)
    transmitRing.publish()
    if transmitRing.shouldNotify() {
      transmitDoorbell.ring()
      statistics.doorbells &+= 1
    }
  }

  /// Packets of one piece that ask for nothing, from `first` on, until there is one of another kind or no room.
  /// - Returns: that one.
  @inline(__always)
  private mutating func sendPlain(_ burst: inout Burst, from first: Int) -> Int {
    let next = sendPlain(&burst, from: first, inHeadroom: false)
    return next < burst.count ? sendPlain(&burst, from: next, inHeadroom: true) : next
  }

  /// The same, of those whose header lies in the bytes before them, in one descriptor with them, or of those that have
  /// two descriptors, the first for the header that all of them share.
  @inline(__always)
  private mutating func sendPlain(
    _ burst: inout Burst, from first: Int, inHeadroom: Bool
  ) -> Int {
    let (arena, plainHeader) = (arena, plainHeader)
    let flags = inHeadroom ? UInt64(Descriptor.Flags.headroom.rawValue) &<< 32 : 0
    let pieces = inHeadroom ? 1 : 2
    var chains = transmitRing.newChains()
    let before = chains.room
    let room = before &- min(burst.count &- first, before / pieces) &* pieces
    let slots = burst.start + first
    var slot = slots
    var bytes: UInt64 = 0
    while chains.room > room {
      let (place, rest) = (slot.place, slot.rest)
      let length = UInt32(truncatingIfNeeded: rest)
      // Both ends in one comparison.
      if length &- UInt32(minimumFrame) > UInt32(maximumFrame - minimumFrame) { break }
      if rest & 0xffff &<< 32 != flags { break }
      let position = Descriptor.position(of: place)
      let tag = UInt16(truncatingIfNeeded: rest &>> 48)
      if inHeadroom {
        if position < UInt64(Descriptor.headroom) { break }
        let start = position &- UInt64(VirtioNetHeader.byteCount)
        arena.clearThree32(at: Int(truncatingIfNeeded: start))
        chains.add(
          iova: arena.iova &+ start, byteCount: length &+ UInt32(VirtioNetHeader.byteCount),
          writable: false, place: place, tag: tag)
      } else {
        chains.add(
          behind: plainHeader, iova: arena.iova &+ position, byteCount: length, place: place,
          tag: tag)
      }
      bytes &+= UInt64(length)
      slot += 1
    }
    transmitRing.add(chains)
    statistics.sentPackets &+= UInt64(truncatingIfNeeded: slot - slots)
    statistics.sentBytes &+= bytes
    return first &+ (slot - slots)
  }

  /// Any packet, which begins at `first`.
  /// - Returns: its slots; 0 where it is not whole or finds no room.
  @inline(never)
  private mutating func send(_ burst: inout Burst, _ first: Int) -> Int {
    // Whoever filled the burst delivers whole packets only.
    guard let end = burst.endOfPacket(from: first) else { return 0 }
    let slots = end &- first &+ 1
    let packet = OutgoingPacket(burst, from: first, through: end)
    let (start, pieces, tag) = (packet.first, packet.pieces, packet.tag)
    if transmitRing.room < pieces &+ 1 && pieces < transmitRing.size { return 0 }
    if refused.room == 0 { return 0 }
    guard let metadata = Self.metadata(packet, burst, features, transmitRing.size) else {
      statistics.sendErrors &+= 1
      refused.append(Descriptor(segment: 0, tag: tag))
      return slots
    }
    let head = transmitRing.nextHead
    Self.write(metadata, to: headers, at: head)
    let header = headers.iova &+ UInt64(head &* 16)
    if let tables, pieces > 1, pieces < Self.tableEntries {
      let offset = head &* Self.tableEntries &* 16
      let table = tables.dropFirst(offset).first((pieces &+ 1) &* 16)
      Ring.write(
        0, of: pieces &+ 1, in: table, iova: header, byteCount: UInt32(VirtioNetHeader.byteCount))
      for piece in 0..<pieces {
        let slot = burst[start &+ piece]
        Ring.write(
          piece &+ 1, of: pieces &+ 1, in: table, iova: arena.iova &+ slot.position,
          byteCount: slot.length)
      }
      transmitRing.addIndirect(table, slot: Descriptor(segment: 0, tag: tag))
    } else {
      var chain = transmitRing.beginChain(
        iova: header, byteCount: UInt32(VirtioNetHeader.byteCount))
      for piece in 0..<pieces {
        let slot = burst[start &+ piece]
        transmitRing.extend(
          &chain, iova: arena.iova &+ slot.position, byteCount: slot.length, writable: false)
      }
      transmitRing.finish(chain, slot: Descriptor(segment: 0, tag: tag))
    }
    statistics.sentPackets &+= 1
    statistics.sentBytes &+= UInt64(packet.bytes)
    return slots
  }

  /// One descriptor for the header and one for each piece, where it takes as many.
  func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission {
    if transmitRing.isBroken || refused.room == 0 { return .noRoom }
    let packet = OutgoingPacket(burst, from: first, through: last)
    if Self.metadata(packet, burst, features, transmitRing.size) == nil { return .refused }
    if transmitRing.room &- places < packet.pieces &+ 1 { return .noRoom }
    places &+= packet.pieces &+ 1
    return .admitted
  }

  /// - Returns: nil where the packet is none, or asks for what was not negotiated or does not fit it.
  private static func metadata(
    _ packet: OutgoingPacket, _ burst: borrowing Burst, _ features: VirtioFeatures, _ ringSize: Int
  ) -> Offload? {
    guard packet.pieces > 0, packet.pieces < ringSize, packet.bytes >= minimumFrame,
      packet.bytes <= maximumFrame, let metadata = packet.offload(burst)
    else { return nil }
    if metadata.needsChecksum {
      let end = Int(metadata.checksumStart) &+ Int(metadata.checksumOffset) &+ 2
      if !features.contains(.checksum) || end > packet.bytes { return nil }
    }
    switch metadata.segmentation {
    case .none: return metadata
    case .tcp4: if !features.contains(.hostTSO4) { return nil }
    case .tcp6: if !features.contains(.hostTSO6) { return nil }
    case .udp: return nil
    }
    // 5.1.6.2.1: segmentation needs the checksum, a size and a header length inside the packet.
    if !metadata.needsChecksum || metadata.segmentSize == 0
      || Int(metadata.headerLength) > packet.bytes
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
