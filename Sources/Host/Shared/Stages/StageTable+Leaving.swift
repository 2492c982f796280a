import CLinux
import Channel
import Driver
import Memory
import Steering

/// What stages give back: checked, and on its way.
extension StageTable {
  /// Tags of packets that the device has from a stage; those of instances' packets are smaller.
  static let deviceTag: UInt16 = 0x8000

  /// Takes packets from one stage as long as there is room for them to go on.
  /// - Returns: whether there was any.
  mutating func leave(
    _ port: Port, _ ledger: inout SegmentLedger, _ instances: inout InstanceTable,
    _ times: inout PathTimes
  ) -> Bool {
    var worked = false
    let place = port.pointee.place
    // Bounded: a stage that never stops does not keep the others waiting.
    for _ in 0..<64 {
      if departing.room <= Descriptor.maximumSlots { break }
      if arriving.room <= Descriptor.maximumSlots { deliverArrived(&ledger, &instances) }
      var offence = EndReason.none
      guard let packet = port.pointee.takeNext(&offence) else {
        if offence != .none { close(place, offence, &ledger, &instances) }
        break
      }
      worked = true
      let number = Int(packet.number)
      guard isIn(packet, place) else {
        close(place, .notItsSegment, &ledger, &instances)
        break
      }
      if flights[number].since != 0 { noteTime(number, &times) }
      if flights[number].origin == .spare { port.pointee.spares &-= 1 }
      goOn(number, packet, from: place, &ledger, &instances)
    }
    handBackEnded(&instances)
    return worked
  }

  /// How long a packet has been in its stage.
  @inline(never)
  private mutating func noteTime(_ number: Int, _ times: inout PathTimes) {
    times.record(.stage, monotonic_nanoseconds() &- flights[number].since)
    flights[number].since = 0
  }

  /// Whether a stage has this packet, and its head lies where it may.
  private mutating func isIn(_ packet: StagedPacket, _ place: Int) -> Bool {
    guard Int(packet.number) < StagedFlights.capacity else { return false }
    let flight = flights[Int(packet.number)]
    guard flight.holder == .stage, Int(flight.place) == place else { return false }
    if packet.way == .none { return true }
    return packet.position >= flight.lower
      && packet.position &+ UInt64(packet.byteCount) <= flight.upper
      && packet.byteCount >= FrameLimits.minimumBytes
      && UInt64(packet.byteCount) &+ UInt64(flight.unseen) <= 65535 + 18
  }

  /// To the next stage, to the instances, to the wire, or to its end.
  private mutating func goOn(
    _ number: Int, _ packet: StagedPacket, from place: Int, _ ledger: inout SegmentLedger,
    _ instances: inout InstanceTable
  ) {
    var flight = flights[number]
    if packet.way == .none {
      if flight.origin != .spare { count(place, .dropped) }
      end(number, &ledger, &instances)
      return
    }
    flight.passed |=
      packet.way == flight.way
      ? 1 &<< UInt8(truncatingIfNeeded: place) : StagePlan.behind(place, packet.way)
    count(place, flight.origin == .spare ? .made : .passed)
    // From here on it is a packet like others, for a stage that it comes to next too.
    if flight.origin == .spare { flight.origin = .received }
    flight.way = packet.way
    flights[number] = flight
    move(number, to: packet)
    if instances.tap.isOn { capture(number, packet, from: place, &instances) }
    switch nextStep(flight, position: packet.position, byteCount: packet.byteCount, &instances) {
    case .stage(let next): hand(number, to: next, packet, &ledger, &instances)
    case .dropped: end(number, &ledger, &instances)
    case .out:
      if packet.way == .receive {
        arrive(number, packet, from: place, &ledger, &instances)
      } else {
        depart(number, packet, from: place, &ledger, &instances)
      }
    }
  }

  /// The head lies where the stage has left it. What it is a piece of stays as it was.
  private mutating func move(_ number: Int, to packet: StagedPacket) {
    let head = flights.pieces(number)
    let unit = UInt64(Descriptor.unit)
    if flights[number].origin == .sent {
      head.pointee.segment = UInt32(truncatingIfNeeded: packet.position / unit)
      head.pointee.offset = UInt32(truncatingIfNeeded: packet.position % unit)
    } else {
      head.pointee.offset = UInt32(
        truncatingIfNeeded: packet.position &- UInt64(head.pointee.segment) &* unit)
    }
    head.pointee.length = packet.byteCount
  }

  private mutating func arrive(
    _ number: Int, _ packet: StagedPacket, from place: Int, _ ledger: inout SegmentLedger,
    _ instances: inout InstanceTable
  ) {
    let total = Int(packet.byteCount) &+ Int(flights[number].unseen)
    let metadata = packet.metadata
    let sumEnd = Int(metadata.checksumStart) &+ Int(metadata.checksumOffset) &+ 2
    guard !metadata.needsChecksum || sumEnd <= total,
      metadata.segmentation == .none || metadata.needsChecksum && metadata.segmentSize > 0,
      fitsSegments(number, ledger.segmentSize)
    else {
      count(place, .droppedInvalid)
      end(number, &ledger, &instances)
      return
    }
    append(number, packet, tag: 0, to: .instances)
    flights[number].holder = .delivery
    arrivingNumbers[arrivingCount] = UInt16(truncatingIfNeeded: number)
    arrivingSlots[arrivingCount] = instances.tap.slot(of: flights[number].number)
    arrivingCount &+= 1
  }

  /// Whether each piece can be copied into a segment. Those that an instance sends have any length, and could be turned round.
  private mutating func fitsSegments(_ number: Int, _ segmentSize: Int) -> Bool {
    if flights[number].origin != .sent { return true }
    let pieces = flights.pieces(number)
    for position in 0..<Int(flights[number].pieces) where pieces[position].length > segmentSize {
      return false
    }
    return true
  }

  private mutating func depart(
    _ number: Int, _ packet: StagedPacket, from place: Int, _ ledger: inout SegmentLedger,
    _ instances: inout InstanceTable
  ) {
    let total = Int(packet.byteCount) &+ Int(flights[number].unseen)
    let inspected = min(Int(packet.byteCount), PacketHeader.maximumBytes)
    let header = PacketHeader(
      frame: instances.window + Int(packet.position), byteCount: inspected)
    var packet = packet
    guard
      instances.limits.check(&packet.metadata, header, byteCount: total, inspected: inspected)
        == .fits
    else {
      count(place, .droppedInvalid)
      end(number, &ledger, &instances)
      return
    }
    if flights[number].origin == .sent {
      append(number, packet, tag: flights[number].tag, to: .wire)
      flights.giveBack(number)
    } else {
      append(number, packet, tag: Self.deviceTag | UInt16(truncatingIfNeeded: number), to: .wire)
      flights[number].holder = .device
    }
  }

  private enum Target { case instances, wire, captures }

  private mutating func append(
    _ number: Int, _ packet: StagedPacket, tag: UInt16, to target: Target
  ) {
    let isDescribed = packet.metadata.needsChecksum || packet.metadata.segmentation != .none
    if isDescribed {
      var metadata = packet.metadata
      metadata.tag = tag
      append(metadata.slot, to: target)
    }
    let pieces = flights.pieces(number)
    let count = Int(flights[number].pieces)
    for position in 0..<count {
      var piece = pieces[position]
      piece.flags = position &+ 1 < count ? .more : Descriptor.Flags(rawValue: 0)
      piece.tag = position == 0 && !isDescribed ? tag : 0
      if position == 0 && packet.isChecked && target != .wire {
        piece.flags.insert(.checksumValid)
      }
      append(piece, to: target)
    }
  }

  private mutating func append(_ slot: Descriptor, to target: Target) {
    switch target {
    case .instances: arriving.append(slot)
    case .wire: departing.append(slot)
    case .captures: captured.append(slot)
    }
  }

  @inline(never)
  private mutating func capture(
    _ number: Int, _ packet: StagedPacket, from place: Int, _ instances: inout InstanceTable
  ) {
    append(number, packet, tag: 0, to: .captures)
    instances.tap.capture(
      packet.way == .receive ? .stageReceive : .stageTransmit, captured.start, captured.count,
      number: instances.tap.slot(of: flights[number].number),
      instance: UInt32(truncatingIfNeeded: place), base: 0)
    captured.removeAll()
  }

  /// The instances get what has come for them.
  mutating func deliverArrived(
    _ ledger: inout SegmentLedger, _ instances: inout InstanceTable
  ) {
    if arriving.isEmpty { return }
    instances.deliver(arriving, numbers: UnsafePointer(arrivingSlots))
    arriving.removeAll()
    for position in 0..<arrivingCount {
      end(Int(arrivingNumbers[position]), &ledger, &instances)
    }
    arrivingCount = 0
    handBackEnded(&instances)
  }

  /// Packets for the wire go into the driver's burst, whole ones, as many as it has room for.
  @inline(never) @usableFromInline
  mutating func depart(into burst: inout Burst) {
    var moved = 0
    while moved < departing.count, let last = departing.endOfPacket(from: moved),
      last &- moved &+ 1 <= burst.room
    {
      for position in moved...last { burst.append(departing[position]) }
      moved = last &+ 1
    }
    departing.removeFirst(moved)
  }

  // MARK: Ends

  /// A packet is no more: its memory is whose it was.
  mutating func end(
    _ number: Int, _ ledger: inout SegmentLedger, _ instances: inout InstanceTable
  ) {
    drop(
      flights.pieces(number), Int(flights[number].pieces), flights[number], &ledger, &instances)
    flights.giveBack(number)
  }

  mutating func drop(
    _ pieces: UnsafePointer<Descriptor>, _ count: Int, _ flight: StagedFlight,
    _ ledger: inout SegmentLedger, _ instances: inout InstanceTable
  ) {
    switch flight.origin {
    case .received, .spare:
      for position in 0..<count { ledger.reclaim(pieces[position].segment) }
    case .sent:
      if ended.room == 0 { handBackEnded(&instances) }
      ended.append(Descriptor(segment: 0, tag: flight.tag))
    }
  }

  mutating func handBackEnded(_ instances: inout InstanceTable) {
    if !ended.isEmpty { instances.complete(&ended) }
  }

  /// The device has done with packets: those that it had from a stage end here, the others stay in the burst.
  @inline(never) @usableFromInline
  mutating func takeCompleted(
    _ completed: inout Burst, _ ledger: inout SegmentLedger, _ instances: inout InstanceTable
  ) {
    var kept = 0
    for position in 0..<completed.count {
      let slot = completed[position]
      if slot.tag & Self.deviceTag == 0 {
        completed[kept] = slot
        kept &+= 1
        continue
      }
      let number = Int(slot.tag & ~Self.deviceTag)
      // A driver that names one that it does not have is a defect.
      precondition(flights[number].holder == .device)
      end(number, &ledger, &instances)
    }
    completed.truncate(to: kept)
  }
}
