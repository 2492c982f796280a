import Driver
import Memory
import Rings

extension E1000eQueuePair {
  /// Packets become descriptors: a context where something is left to the device, then the pieces in place.
  public mutating func transmit(_ burst: inout Burst) throws(DriverError) {
    var at = 0
    while at < burst.count {
      guard let end = burst.endOfPacket(from: at), refused.room > 0 else { break }
      let packet = OutgoingPacket(burst, from: at, through: end)
      let dataSlots = packet.dataSlots(burst)
      // With a context and a copied header at most.
      let slots = dataSlots &+ 2
      if transmitRing.room < slots && slots < transmitRing.size { break }
      if slots < transmitRing.size, let work = work(for: packet, burst) {
        send(packet, work, burst, dataSlots)
      } else {
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

  /// By what ``transmit(_:)`` does.
  public mutating func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission {
    if refused.room == 0 { return .noRoom }
    let packet = OutgoingPacket(burst, from: first, through: last)
    let slots = packet.dataSlots(burst) &+ 2
    if slots >= transmitRing.size || work(for: packet, burst) == nil { return .refused }
    if transmitRing.room &- places < slots { return .noRoom }
    places &+= slots
    return .admitted
  }

  /// What is left to the device for a packet; nil where the packet cannot be sent as it is. Where it is to be segmented,
  /// its headers have been copied to the place of the ring's next descriptor: the sender may change its own meanwhile.
  private mutating func work(for packet: OutgoingPacket, _ burst: borrowing Burst) -> Work? {
    guard packet.bytes >= 14, packet.pieces > 0, let offload = packet.offload(burst) else {
      return nil
    }
    var work = Work(offload)
    let afterSum = work.sum &+ 2
    guard work.isSegmentation else {
      let sumFits = afterSum <= packet.bytes && work.sum <= 255
      return packet.bytes <= maximumFrame && (sumFits || !offload.needsChecksum) ? work : nil
    }
    guard offload.needsChecksum, offload.segmentSize > 0, (34...220).contains(work.start),
      work.start &+ 20 < packet.bytes, packet.bytes &- work.start <= 0xffff
    else { return nil }
    let buffer = transmitRing.nextSlot &* Self.headerBytes
    packet.copy(burst, of: arena, byteCount: Self.headerBytes, to: headers, at: buffer)
    // The header's length is in the header: what the sender says of it beside is a hint.
    let tcpHeader = Int(headers.load8(at: buffer &+ work.start &+ 12) &>> 4) &* 4
    work.header = work.start &+ tcpHeader
    let isWhole = tcpHeader >= 20 && work.header <= 240 && work.header < packet.bytes
    return isWhole && afterSum <= work.header ? work : nil
  }

  /// Puts a packet on the ring.
  private mutating func send(
    _ packet: OutgoingPacket, _ work: Work, _ burst: borrowing Burst, _ dataSlots: Int
  ) {
    statistics.sentPackets &+= 1
    statistics.sentBytes &+= UInt64(packet.bytes)
    if work.isSegmentation { return segment(packet, work, burst) }
    var options: UInt64 = 0
    var slots = dataSlots
    if work.offload.needsChecksum {
      // 7.2.11: from the start to the packet's end, which an end of 0 means.
      slots &+= 1
      let places = UInt64(work.start) &<< 32 | UInt64(work.sum) &<< 40
      give(places, TransmitDescriptor.extended, packet, &slots)
      options = TransmitDescriptor.insertTransportChecksum
    }
    givePieces(packet, burst, from: 0, options, &slots)
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
    for index in packet.first...packet.last {
      let slot = burst[index]
      var done = min(toSkip, slot.length)
      toSkip &-= done
      while done < slot.length {
        let start = slot.position &+ UInt64(done)
        let length = min(slot.length &- done, 4096 &- UInt32(start & 4095))
        var high = common | UInt64(length)
        done &+= length
        if index == packet.last && done == slot.length {
          high |= TransmitDescriptor.endOfPacket | TransmitDescriptor.reportStatus
        }
        give(arena.iova &+ start, high, packet, &slots)
      }
    }
  }

  /// TCP segmentation (7.2.6, 7.3.6). The device wants the pseudo-header's sum without the length, and rewrites lengths
  /// and sums of the headers for each segment: it gets a copy of them that is the driver's.
  private mutating func segment(_ packet: OutgoingPacket, _ work: Work, _ burst: borrowing Burst) {
    let (start, at, header) = (work.start, work.sum, work.header)
    let buffer = transmitRing.nextSlot &* Self.headerBytes
    let isIPv4 = work.offload.segmentation == .tcp4
    // Sums are in one's complement: taking the length out is adding its complement.
    let sum =
      UInt32(headers.loadNetwork16(at: buffer &+ at))
      &+ UInt32(~UInt16(truncatingIfNeeded: packet.bytes &- start))
    headers.storeNetwork16(
      UInt16(truncatingIfNeeded: sum & 0xffff &+ sum &>> 16), at: buffer &+ at)
    let network = 14
    // The length, and the checksum where there is one.
    headers.storeNetwork16(0, at: buffer &+ network &+ (isIPv4 ? 2 : 4))
    if isIPv4 { headers.storeNetwork16(0, at: buffer &+ network &+ 10) }
    // One for the context, one for the header; pieces that the header covers need none.
    var slots = 2 &+ packet.dataSlots(from: UInt32(header), burst)
    let payload = UInt64(packet.bytes &- header)
    let kind =
      TransmitDescriptor.extended | TransmitDescriptor.segmentation | TransmitDescriptor.tcp
      | (isIPv4 ? TransmitDescriptor.ipv4 : 0)
    give(
      UInt64(network) | UInt64(network &+ 10) &<< 8 | UInt64(start &- 1) &<< 16
        | UInt64(start) &<< 32 | UInt64(at) &<< 40,
      payload | kind | UInt64(header) &<< 40 | UInt64(work.offload.segmentSize) &<< 48, packet,
      &slots)
    let options =
      TransmitDescriptor.segmentation | TransmitDescriptor.insertTransportChecksum
      | (isIPv4 ? TransmitDescriptor.insertIPChecksum : 0)
    give(
      headers.iova &+ UInt64(buffer),
      TransmitDescriptor.data | TransmitDescriptor.extended | TransmitDescriptor.insertFCS | options
        | UInt64(header), packet, &slots)
    givePieces(packet, burst, from: UInt32(header), options, &slots)
  }
}

/// What is left to the device: a checksum, and cutting a packet into segments.
private struct Work {
  let offload: Offload
  /// Where the checksum begins, and where it goes to.
  let start: Int
  let sum: Int
  /// Bytes of the headers that each segment gets.
  var header = 0

  init(_ offload: Offload) {
    self.offload = offload
    start = Int(offload.checksumStart)
    sum = start &+ Int(offload.checksumOffset)
  }

  var isSegmentation: Bool { offload.segmentation != .none }
}

extension OutgoingPacket {
  /// Descriptors for all bytes from `skipped` on, one for each page.
  fileprivate func dataSlots(from skipped: UInt32 = 0, _ burst: borrowing Burst) -> Int {
    var toSkip = skipped
    var count = 0
    var index = first
    while index <= last {
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
