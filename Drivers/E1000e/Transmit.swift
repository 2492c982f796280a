import Driver
import Memory
import Rings

extension E1000eQueuePair {
  /// Packets become descriptors: a context where something is left to the device, then the pieces in place.
  public mutating func transmit(_ burst: inout Burst) throws(DriverError) {
    let count = burst.count
    var at = 0
    while at < count {
      guard let end = burst.endOfPacket(from: at), refused.room > 0 else { break }
      let packet = OutgoingPacket(burst, at, end)
      // With a context and a copied header at most.
      let slots = packet.dataSlots(burst) &+ 2
      if transmitRing.room < slots && slots < transmitRing.size { break }
      if slots >= transmitRing.size || !send(packet, burst) {
        statistics.sendErrors &+= 1
        refused.append(Descriptor(segment: 0, tag: packet.tag))
      }
      at = end &+ 1
    }
    if at == 0 { return }
    burst.removeFirst(at)
    registers.write32(transmitRing.publish(), at: transmitTail)
    statistics.doorbells &+= 1
  }

  /// - Returns: false where the packet cannot be sent as it is; nothing is on the ring then.
  private mutating func send(_ packet: OutgoingPacket, _ burst: borrowing Burst) -> Bool {
    guard packet.bytes >= 14, packet.hasPieces,
      let metadata = packet.first == packet.at ? Offload() : Offload(burst[packet.at])
    else { return false }
    if metadata.segmentation != .none { return segment(packet, metadata, burst) }
    guard packet.bytes <= maximumFrame else { return false }
    var options: UInt64 = 0
    var slots = packet.dataSlots(burst)
    if metadata.needsChecksum {
      let start = UInt64(metadata.checksumStart)
      let at = start &+ UInt64(metadata.checksumOffset)
      guard at &+ 2 <= UInt64(packet.bytes), at <= 255 else { return false }
      // 7.2.11: from the start to the packet's end, which an end of 0 means.
      slots &+= 1
      give(start &<< 32 | at &<< 40, TransmitDescriptor.extended, packet, &slots)
      options = TransmitDescriptor.insertTransportChecksum
    }
    givePieces(packet, burst, from: 0, options, &slots)
    count(packet)
    return true
  }

  /// By the checks of ``transmit(_:)``, `send` and `segment`.
  public mutating func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission {
    if refused.room == 0 { return .noRoom }
    let packet = OutgoingPacket(burst, first, last)
    let slots = packet.dataSlots(burst) &+ 2
    guard slots < transmitRing.size, packet.bytes >= 14, packet.hasPieces,
      let metadata = packet.first == packet.at ? Offload() : Offload(burst[packet.at])
    else { return .refused }
    let start = Int(metadata.checksumStart)
    let at = start &+ Int(metadata.checksumOffset)
    if metadata.segmentation != .none {
      guard metadata.needsChecksum, metadata.segmentSize > 0, start >= 34, at < 250,
        start &+ 20 < packet.bytes, packet.bytes &- start <= 0xffff
      else { return .refused }
      let header = start &+ Int(packet.byte(at: start &+ 12, burst, arena) &>> 4) &* 4
      guard header <= 240, header < packet.bytes, at &+ 2 <= header else { return .refused }
    } else if packet.bytes > maximumFrame
      || metadata.needsChecksum && (at &+ 2 > packet.bytes || at > 255)
    {
      return .refused
    }
    if transmitRing.room &- places < slots { return .noRoom }
    places &+= slots
    return .admitted
  }

  private mutating func count(_ packet: OutgoingPacket) {
    statistics.sentPackets &+= 1
    statistics.sentBytes &+= UInt64(packet.bytes)
  }

  /// The packet's first descriptor carries its tag and how many they are.
  @inline(__always)
  private mutating func give(
    _ low: UInt64, _ high: UInt64, _ packet: OutgoingPacket, _ slots: inout Int
  ) {
    transmitRing.give(low, high, cookie: UInt64(slots) &<< 16 | UInt64(packet.tag))
    // Only the first one's counts.
    slots = 0
  }

  /// Data descriptors for all bytes from `skipped` on. None crosses a page: the bus would cut it there anyway, and an
  /// emulated controller behind an IOMMU drops a packet whose pages are not neighbours.
  private mutating func givePieces(
    _ packet: OutgoingPacket, _ burst: borrowing Burst, from skipped: UInt32, _ options: UInt64,
    _ slots: inout Int
  ) {
    let common =
      TransmitDescriptor.data | TransmitDescriptor.extended | TransmitDescriptor.insertFCS | options
    var toSkip = skipped
    for index in packet.first...packet.end {
      let slot = burst[index]
      var done = min(toSkip, slot.length)
      toSkip &-= done
      while done < slot.length {
        let start = slot.position &+ UInt64(done)
        let length = min(slot.length &- done, 4096 &- UInt32(start & 4095))
        var high = common | UInt64(length)
        done &+= length
        if index == packet.end && done == slot.length {
          high |= TransmitDescriptor.endOfPacket | TransmitDescriptor.reportStatus
        }
        give(
          arena.iova &+ start, high, packet, &slots)
      }
    }
  }

  /// TCP segmentation (7.2.6, 7.3.6). The device wants the pseudo-header's sum without the length, and rewrites lengths
  /// and sums of the headers for each segment: it gets a copy of them that is the driver's.
  private mutating func segment(
    _ packet: OutgoingPacket, _ metadata: Offload, _ burst: borrowing Burst
  ) -> Bool {
    let start = Int(metadata.checksumStart)
    let at = start &+ Int(metadata.checksumOffset)
    guard metadata.needsChecksum, metadata.segmentSize > 0, start >= 34, at < 250,
      start &+ 20 < packet.bytes
    else { return false }
    let buffer = transmitRing.nextSlot &* Self.headerBytes
    let known = min(packet.bytes, Self.headerBytes)
    packet.copy(burst, of: arena, byteCount: known, to: headers, at: buffer)
    // The header's length is in the header: what the metadata says of it is a hint.
    let header = start &+ Int(headers.load8(at: buffer &+ start &+ 12) &>> 4) &* 4
    guard header <= 240, header < packet.bytes, at &+ 2 <= header,
      packet.bytes &- start <= 0xffff
    else { return false }
    let isIPv4 = metadata.segmentation == .tcp4
    // Sums are in one's complement: taking the length out is adding its complement.
    let sum =
      UInt32(headers.loadNetwork16(at: buffer &+ at))
      &+ UInt32(~UInt16(truncatingIfNeeded: packet.bytes &- start))
    headers.storeNetwork16(
      UInt16(truncatingIfNeeded: sum & 0xffff &+ sum &>> 16), at: buffer &+ at)
    let network = 14
    if isIPv4 {
      headers.storeNetwork16(0, at: buffer &+ network &+ 2)
      headers.storeNetwork16(0, at: buffer &+ network &+ 10)
    } else {
      headers.storeNetwork16(0, at: buffer &+ network &+ 4)
    }
    // One for the context, one for the header; pieces that the header covers need none.
    var slots = 2 &+ packet.dataSlots(from: UInt32(header), burst)
    let payload = UInt64(packet.bytes &- header)
    let kind =
      TransmitDescriptor.extended | TransmitDescriptor.segmentation | TransmitDescriptor.tcp
      | (isIPv4 ? TransmitDescriptor.ipv4 : 0)
    give(
      UInt64(network) | UInt64(network &+ 10) &<< 8 | UInt64(start &- 1) &<< 16
        | UInt64(start) &<< 32 | UInt64(at) &<< 40,
      payload | kind | UInt64(header) &<< 40 | UInt64(metadata.segmentSize) &<< 48, packet, &slots)
    let options =
      TransmitDescriptor.segmentation | TransmitDescriptor.insertTransportChecksum
      | (isIPv4 ? TransmitDescriptor.insertIPChecksum : 0)
    give(
      headers.iova &+ UInt64(buffer),
      TransmitDescriptor.data | TransmitDescriptor.extended | TransmitDescriptor.insertFCS | options
        | UInt64(header), packet, &slots)
    givePieces(packet, burst, from: UInt32(header), options, &slots)
    count(packet)
    return true
  }
}

/// Where a packet lies in a burst, and how large it is.
private struct OutgoingPacket {
  let at: Int
  let first: Int
  let end: Int
  let tag: UInt16
  let bytes: Int

  init(_ burst: borrowing Burst, _ at: Int, _ end: Int) {
    self.at = at
    self.end = end
    tag = burst[at].tag
    first = burst[at].flags.contains(.offload) ? at &+ 1 : at
    bytes = burst.byteCount(from: first, through: end)
  }

  var hasPieces: Bool { first <= end }

  /// One byte; 0 where the packet ends before it.
  func byte(at position: Int, _ burst: borrowing Burst, _ arena: DMARange) -> UInt8 {
    var left = UInt32(truncatingIfNeeded: position)
    var index = first
    while index <= end {
      if left < burst[index].length {
        return arena.load8(at: Int(burst[index].position &+ UInt64(left)))
      }
      left &-= burst[index].length
      index &+= 1
    }
    return 0
  }

  /// Copies the packet's first bytes, which lie in an arena, one by one.
  func copy(
    _ burst: borrowing Burst, of arena: DMARange, byteCount: Int, to headers: DMARange,
    at start: Int
  ) {
    var done = 0
    for index in first...end where done < byteCount {
      let from = Int(burst[index].position)
      let count = min(Int(burst[index].length), byteCount &- done)
      for at in 0..<count { headers.store8(arena.load8(at: from &+ at), at: start &+ done &+ at) }
      done &+= count
    }
  }

  /// Descriptors for all bytes from `skipped` on, one for each page.
  func dataSlots(from skipped: UInt32 = 0, _ burst: borrowing Burst) -> Int {
    var toSkip = skipped
    var count = 0
    var index = first
    while index <= end {
      let covered = min(toSkip, burst[index].length)
      toSkip &-= covered
      let left = UInt64(burst[index].length &- covered)
      let start = (burst[index].position &+ UInt64(covered)) & 4095
      if left > 0 { count &+= Int((start &+ left &+ 4095) &>> 12) }
      index &+= 1
    }
    return count
  }
}
