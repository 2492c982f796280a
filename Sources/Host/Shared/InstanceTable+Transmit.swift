import Channel
import Memory
import Steering

/// Sending: whose packets are next, and what of them may be sent.
extension InstanceTable {
  /// What a weight of 1 may send in each round, in the unit of ``PacketCost``, and the most that anybody saves up: enough
  /// for the largest packet.
  private static let quantum = 4096
  private static let maximumDeficit = 80_000

  /// Appends packets of the instances in turn (deficit round robin: Shreedhar and Varghese, 1995), as many as there is room
  /// for.
  @usableFromInline
  mutating func gather(into burst: inout Burst) {
    let waiting = takePackets()
    if waiting == 0 { return }
    let isAlone = isOneActive
    let first = UInt64(truncatingIfNeeded: firstToSend)
    var order = waiting &>> first | waiting &<< (64 &- first & 63)
    firstToSend = (firstToSend &+ 1) & 63
    while order != 0 {
      let index = (order.removeFirstInstance() &+ Int(first)) & 63
      if !serve(index, isAlone: isAlone, &burst) {
        // Whoever found no room is the first next time.
        firstToSend = index
        return
      }
    }
  }

  /// - Returns: those that have packets to send.
  private mutating func takePackets() -> UInt64 {
    var waiting: UInt64 = 0
    var set = polled
    while set != 0 {
      let index = set.removeFirstInstance()
      var offence = EndReason.none
      if port(index).pointee.takePackets(&offence) {
        waiting |= bit(index)
        noteWork(index)
      }
      if offence != .none {
        waiting &= ~bit(index)
        close(index, offence)
      }
    }
    return waiting
  }

  /// Packets of one instance, until it has none, its share is used up, or there is no room.
  /// - Returns: whether there was room for all that it may send.
  private mutating func serve(_ index: Int, isAlone: Bool, _ burst: inout Burst) -> Bool {
    let port = port(index)
    let limit = isAlone ? InstancePort.maximumInFlight : InstancePort.inFlightBesideOthers
    port.pointee.deficit = min(
      port.pointee.deficit &+ Self.quantum &* port.pointee.weight, Self.maximumDeficit)
    while port.pointee.nextToSend < port.pointee.sending.count {
      let first = port.pointee.nextToSend
      guard let last = port.pointee.sending.endOfPacket(from: first) else { break }
      if burst.room <= Descriptor.maximumSlots || headers.freeCount == 0 { return false }
      if port.pointee.inFlightCount &+ port.pointee.completed.count >= limit { return true }
      let slots = last &- first &+ 1
      var bytes = 0
      var isGone = false
      let reason = Self.check(port, first, slots, &bytes, &isGone)
      // Its packets are sent one by one from here on.
      if reason == .badAggregate && port.pointee.openNext() { continue }
      if reason != .none {
        close(index, reason)
        return true
      }
      if isGone {
        note(index, cost: PacketCost.packet)
        port.pointee.counts[.sendErrors] &+= 1
        giveUp(port, port.pointee.sending[first].tag)
        port.pointee.nextToSend = last &+ 1
        continue
      }
      let cost = PacketCost.of(pieces: slots, bytes: bytes)
      if !isAlone && cost > port.pointee.deficit { return true }
      port.pointee.deficit = max(0, port.pointee.deficit &- cost)
      note(index, cost: cost)
      port.pointee.nextToSend = last &+ 1
      if tap.isOnInstances {
        tap.capture(
          .channelTransmit, port.pointee.sending.start + first, slots, number: burst.count,
          instance: port.pointee.id, base: Int(port.pointee.base))
      }
      let offence = send(port, first, slots, bytes, &burst)
      if offence != .none {
        close(index, offence)
        return true
      }
    }
    port.pointee.deficit = 0
    return true
  }

  /// Whether a packet of an instance is one: its pieces lie in what the instance may send. The slots have been copied from
  /// shared memory before.
  /// - Parameter isGone: set where some of it is registered no more.
  /// - Returns: the rule that it breaks, if any; ``EndReason/badAggregate`` also for an aggregate that has not been opened.
  private static func check(
    _ port: Port, _ first: Int, _ count: Int, _ bytes: inout Int, _ isGone: inout Bool
  ) -> EndReason {
    if count > Descriptor.maximumSlots { return .endlessPacket }
    let part = port.pointee.transmitPart
    let isDescribed = port.pointee.sending[first].flags.contains(.offload)
    if isDescribed {
      if count == 1 { return .badOffload }
      if port.pointee.sending[first].flags.contains(.aggregate) { return .badAggregate }
    }
    let special = Descriptor.Flags.offload.rawValue | Descriptor.Flags.aggregate.rawValue
    for position in (isDescribed ? 1 : 0)..<count {
      let slot = port.pointee.sending[first &+ position]
      if slot.flags.rawValue & special != 0 {
        return slot.flags.contains(.aggregate) ? .badAggregate : .badOffload
      }
      let start = slot.position
      let end = start &+ UInt64(slot.length)
      bytes &+= Int(slot.length)
      if slot.length > 0 && start >= part.lowerBound && end <= part.upperBound { continue }
      // A segment that it has received may be sent as it lies, where it is all of the packet.
      let isAlone = count == (isDescribed ? 2 : 1)
      let size = UInt64(port.pointee.ledger.segmentSize)
      if slot.length > 0 && isAlone && end <= part.lowerBound
        && UInt64(slot.offset) &+ UInt64(slot.length) <= size
      {
        continue
      }
      switch port.pointee.registered.find(start, end) {
      case .registered: continue
      case .gone: isGone = true
      case .elsewhere: return .outsideItsMemory
      }
    }
    return .none
  }

  /// Puts a packet into the burst: its first bytes are copied to where only the host writes, looked at there and sent from
  /// there; what follows them is sent where it lies.
  /// - Returns: the rule that it breaks, if any.
  private mutating func send(
    _ port: Port, _ first: Int, _ count: Int, _ bytes: Int, _ burst: inout Burst
  ) -> EndReason {
    let isDescribed = port.pointee.sending[first].flags.contains(.offload)
    let tag = port.pointee.sending[first].tag
    let firstPiece = isDescribed ? first &+ 1 : first
    let end = first &+ count
    var metadata = Offload()
    if isDescribed {
      guard let said = Offload(port.pointee.sending[first]) else { return .badOffload }
      metadata = said
    }
    let inPlace = port.pointee.sending[firstPiece].position < port.pointee.transmitPart.lowerBound
    let segment = inPlace ? port.pointee.sending[firstPiece].segment : HeaderSlots.noSegment
    if inPlace {
      do throws(LedgerError) {
        try port.pointee.ledger.beginSending(segment)
      } catch {
        return .notItsSegment
      }
    }
    let copied = min(bytes, PacketHeader.maximumBytes)
    // These are static: a method that does not change the table would get a copy of all of it.
    Self.copyHeaders(port, firstPiece, copied, to: headers.nextBytes)
    let packet = PacketHeader(frame: headers.nextBytes, byteCount: copied)
    let verdict =
      bytes < FrameLimits.minimumBytes
      ? .dropped : limits.check(&metadata, packet, byteCount: bytes, inspected: copied)
    let maySend =
      verdict == .fits && table.maySend(packet, headers.nextBytes, copied, from: port.pointee.index)
    let needsMore = end &- firstPiece == Descriptor.maximumSlots && bytes > copied
    guard maySend, !needsMore else {
      if inPlace { port.pointee.ledger.endSending(segment) }
      if verdict == .offence { return .badOffload }
      port.pointee.counts[verdict == .fits && !maySend ? .refusedSource : .sendErrors] &+= 1
      giveUp(port, tag)
      return .none
    }
    let place = headers.nextPosition
    let ours = headers.take(
      for: HeaderSlots.Flight(
        instance: UInt8(truncatingIfNeeded: port.pointee.index), epoch: port.pointee.epoch,
        tag: tag, segment: segment))
    if port.pointee.epoch == 0 {
      port.pointee.inFlight.0 &+= 1
    } else {
      port.pointee.inFlight.1 &+= 1
    }
    let asksForMore = metadata.needsChecksum
    if asksForMore {
      metadata.tag = ours
      burst.append(metadata.slot)
    }
    burst.append(
      Self.piece(
        at: place, UInt32(truncatingIfNeeded: copied),
        flags: bytes > copied ? Descriptor.Flags.headroom.union(.more) : .headroom,
        tag: asksForMore ? 0 : ours))
    Self.appendRest(port, firstPiece..<end, behind: copied, &burst)
    port.pointee.counts[.sentPackets] &+= 1
    port.pointee.counts[.sentBytes] &+= UInt64(bytes)
    port.pointee.counts[.headerBytesCopied] &+= UInt64(copied)
    if inPlace { port.pointee.counts[.sentInPlace] &+= 1 }
    return .none
  }

  /// The packet's first bytes, from as many pieces as they lie in.
  private static func copyHeaders(
    _ port: Port, _ firstPiece: Int, _ count: Int, to target: UnsafeMutableRawPointer
  ) {
    var done = 0
    var position = firstPiece
    while done < count {
      let slot = port.pointee.sending[position]
      let length = min(Int(slot.length), count &- done)
      (target + done).copyMemory(
        from: port.pointee.arena + Int(slot.position), byteCount: length)
      done &+= length
      position &+= 1
    }
  }

  /// What lies behind the copied bytes, in place.
  private static func appendRest(
    _ port: Port, _ pieces: Range<Int>, behind copied: Int, _ burst: inout Burst
  ) {
    var skipped = copied
    for position in pieces {
      let slot = port.pointee.sending[position]
      let length = Int(slot.length)
      if skipped >= length {
        skipped &-= length
        continue
      }
      burst.append(
        Self.piece(
          at: port.pointee.base &+ slot.position &+ UInt64(skipped),
          UInt32(truncatingIfNeeded: length &- skipped),
          flags: position &+ 1 < pieces.upperBound ? .more : Descriptor.Flags(rawValue: 0), tag: 0))
      skipped = 0
    }
  }

  private static func piece(
    at position: UInt64, _ length: UInt32, flags: Descriptor.Flags, tag: UInt16
  ) -> Descriptor {
    let unit = UInt64(Descriptor.unit)
    return Descriptor(
      segment: UInt32(truncatingIfNeeded: position / unit),
      offset: UInt32(truncatingIfNeeded: position % unit), length: length, flags: flags, tag: tag)
  }

  /// A packet that is not sent is the instance's again at once.
  private mutating func giveUp(_ port: Port, _ tag: UInt16) {
    port.pointee.finish(tag)
    owed |= bit(port.pointee.index)
  }
}
