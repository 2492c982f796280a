import Driver
import Memory
import Rings

extension RadioLinkQueuePair {
  /// Each slot is a descriptor; the last one of a packet carries END (section 5).
  public mutating func transmit(_ burst: inout Burst) throws(DriverError) {
    if violation != nil { return }
    let before = sent
    let count = burst.count
    var at = 0
    while at < count {
      var end = at
      while burst[end].flags.contains(.more) && end &+ 1 < count { end &+= 1 }
      // The rest of a packet is not here: whoever filled the burst delivers whole ones only.
      if burst[end].flags.contains(.more) { break }
      let first = burst[at].flags.contains(.offload) ? at &+ 1 : at
      let room = rings.transmitSize &- Int(sent &- done)
      if room < end &- first &+ 1 && rings.transmitSize > end &- first { break }
      if refusedPackets.room == 0 { break }
      send(&burst, at, first, end)
      at = end &+ 1
    }
    burst.removeFirst(at)
    if sent == before { return }
    rings.indexes.publish()
    registers.write32(sent, at: RadioLinkRegister.transmitTail)
    counts.doorbells &+= 1
  }

  private mutating func send(_ burst: inout Burst, _ at: Int, _ first: Int, _ end: Int) {
    let tag = burst[at].tag
    var bytes = 0
    var isWhole = first <= end && end &- first < rings.transmitSize && asksForNothing(burst[at])
    if isWhole {
      for index in first...end {
        bytes &+= Int(burst[index].length)
        if burst[index].length == 0 { isWhole = false }
      }
    }
    guard isWhole, bytes >= 14, bytes <= maximumPacketBytes else {
      counts.sendErrors &+= 1
      refusedPackets.append(Descriptor(segment: 0, tag: tag))
      return
    }
    for index in first...end {
      let slot = burst[index]
      let place = Int(sent & rings.transmitMask)
      let word = UInt64(slot.length) | (index == end ? RadioLinkLayout.transmitEnd : 0)
      rings.transmit.store64(
        arena.iova &+ slot.position, at: place &* RadioLinkLayout.descriptorBytes)
      rings.transmit.store64(word, at: place &* RadioLinkLayout.descriptorBytes &+ 8)
      var record = Descriptor(segment: 0, tag: tag)
      if index != end { record.flags.insert(.more) }
      outgoing[place] = record
      sent &+= 1
    }
    counts.sentPackets &+= 1
    counts.sentBytes &+= UInt64(bytes)
  }

  public mutating func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission {
    if violation != nil || refusedPackets.room == 0 { return .noRoom }
    let start = burst[first].flags.contains(.offload) ? first &+ 1 : first
    let pieces = last &- start &+ 1
    guard pieces > 0, pieces <= rings.transmitSize, asksForNothing(burst[first]) else {
      return .refused
    }
    var index = start
    while index <= last {
      if burst[index].length == 0 { return .refused }
      index &+= 1
    }
    let bytes = burst.byteCount(from: start, through: last)
    if bytes < 14 || bytes > maximumPacketBytes { return .refused }
    if rings.transmitSize &- Int(sent &- done) &- places < pieces { return .noRoom }
    places &+= pieces
    return .admitted
  }

  /// The device has no offloads.
  private func asksForNothing(_ slot: Descriptor) -> Bool {
    if !slot.flags.contains(.offload) { return true }
    guard let offload = Offload(slot) else { return false }
    return !offload.needsChecksum && offload.segmentation == .none
  }

  public mutating func completeTransmit(into burst: inout Burst) throws(DriverError) {
    if let violation { throw violation.error }
    while !refusedPackets.isEmpty && burst.room > 0 {
      burst.append(refusedPackets[refusedPackets.count &- 1])
      refusedPackets.truncate(to: refusedPackets.count &- 1)
    }
    let index = rings.indexes.loadAcquiring32(at: RadioLinkLayout.sentIndex)
    if index &- done > sent &- done {
      throw broken(
        .descriptorsDone(counted: index, after: done, outstanding: sent &- done))
    }
    while done != index && burst.room > 0 {
      let record = outgoing[Int(done & rings.transmitMask)]
      done &+= 1
      if !record.flags.contains(.more) { burst.append(Descriptor(segment: 0, tag: record.tag)) }
    }
  }

  /// Packets that the device has not said to be done with.
  mutating func takeBackPackets(into packets: inout Burst) {
    while packets.room > 0 && done != sent {
      let record = outgoing[Int(done & rings.transmitMask)]
      done &+= 1
      if !record.flags.contains(.more) { packets.append(Descriptor(segment: 0, tag: record.tag)) }
    }
  }
}
