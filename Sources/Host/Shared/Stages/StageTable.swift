import CLinux
import Channel
import Memory
import Steering

/// The stages on one queue pair, as its thread sees them. Packets enter on their way from the wire and to it, lie where they
/// are meanwhile, and come back by the stage's transmit ring: what it says then is checked, and nothing of its is read twice.
///
/// What a stage does against the rules ends that stage, never the thread. One thread; leaving is in StageTable+Leaving.swift.
@usableFromInline
struct StageTable: ~Copyable {
  typealias Port = UnsafeMutablePointer<StagePort>

  // Invariant: `ports` has as many initialised elements as there may be stages, and one that is not nil for each bit of `up`.
  private let ports: UnsafeMutablePointer<Port?>
  /// Those that run.
  private(set) var up: UInt8 = 0
  /// Those to whom something has been given in this turn.
  var touched: UInt8 = 0
  var flights = StagedFlights()
  /// Packets that leave for the instances, and their numbers.
  var arriving = Burst(capacity: 256)
  let arrivingNumbers: UnsafeMutablePointer<UInt16>
  /// The same as captures number them.
  let arrivingSlots: UnsafeMutablePointer<Int>
  /// One packet on its way into captures.
  var captured = Burst(capacity: Descriptor.maximumSlots + 1)
  var arrivingCount = 0
  /// Packets that leave for the wire.
  var departing = Burst(capacity: 256)
  /// Tags of packets that are the instances' again without having been sent.
  var ended = Burst(capacity: 64)
  private var lending = Burst(capacity: StagedPacket.spares)
  let counts: UnsafeMutablePointer<UInt64>
  private let published: UnsafeMutablePointer<UInt64>
  /// Whether there are any, up or not.
  @usableFromInline private(set) var isOn = false
  /// How long packets are inside is counted of what enters while this is not 0: nanoseconds of the monotonic clock.
  @usableFromInline var now: UInt64 = 0

  private static let words = StagePlan.maximumStages * StageCounter.count

  init() {
    ports = .allocate(capacity: StagePlan.maximumStages)
    ports.initialize(repeating: nil, count: StagePlan.maximumStages)
    arrivingNumbers = .allocate(capacity: 256)
    arrivingNumbers.initialize(repeating: 0, count: 256)
    arrivingSlots = .allocate(capacity: 256)
    arrivingSlots.initialize(repeating: 0, count: 256)
    counts = .allocate(capacity: 2 * Self.words)
    counts.initialize(repeating: 0, count: 2 * Self.words)
    published = counts + Self.words
  }

  @usableFromInline
  deinit {
    ports.deallocate()
    arrivingNumbers.deallocate()
    arrivingSlots.deallocate()
    counts.deallocate()
  }

  @inline(__always)
  func port(_ place: Int) -> Port? { ports[place & (StagePlan.maximumStages &- 1)] }

  @inline(__always)
  func isUp(_ place: Int) -> Bool { up &>> UInt8(truncatingIfNeeded: place) & 1 != 0 }

  @inline(__always)
  func count(_ place: Int, _ counter: StageCounter, _ change: UInt64 = 1) {
    counts[place &* StageCounter.count &+ counter.rawValue] &+= change
  }

  // MARK: Entering

  /// Packets of a burst that go through a stage leave the burst, and so do those that are dropped for want of one.
  @inline(never) @usableFromInline
  mutating func enter(
    _ burst: inout Burst, isSent: Bool, _ ledger: inout SegmentLedger,
    _ instances: inout InstanceTable
  ) {
    var kept = 0
    var first = 0
    while first < burst.count {
      guard let last = burst.endOfPacket(from: first) else { break }
      let slots = last &- first &+ 1
      if enter(burst.start + first, slots, at: first, isSent: isSent, &ledger, &instances) {
        first = last &+ 1
        continue
      }
      for position in first...last {
        var slot = burst[position]
        // A stage could write there when the driver has.
        slot.flags.remove(.headroom)
        burst[kept] = slot
        kept &+= 1
      }
      first = last &+ 1
    }
    burst.truncate(to: kept)
    handBackEnded(&instances)
  }

  /// - Returns: whether the packet is on no other way any more.
  private mutating func enter(
    _ slots: UnsafePointer<Descriptor>, _ count: Int, at slot: Int, isSent: Bool,
    _ ledger: inout SegmentLedger, _ instances: inout InstanceTable
  ) -> Bool {
    let isDescribed = slots.pointee.flags.contains(.offload)
    let first = isDescribed ? 1 : 0
    if count == first { return false }
    let head = slots[first]
    var flight = StagedFlight()
    flight.way = isSent ? .transmit : .receive
    flight.origin = isSent ? .sent : .received
    flight.tag = slots.pointee.tag
    flight.pieces = UInt8(truncatingIfNeeded: count &- first)
    var total: UInt32 = 0
    for position in first..<count { total &+= slots[position].length }
    flight.unseen = total &- head.length
    let step = nextStep(
      flight, position: head.position, byteCount: head.length, &instances)
    guard case .stage(let place) = step else {
      if case .out = step { return false }
      drop(slots + first, count &- first, flight, &ledger, &instances)
      return true
    }
    // Bounds within which a stage may move the head: the segment, or the place for headers.
    if isSent {
      let size = UInt64(HeaderSlots.byteCount)
      flight.lower = head.position / size * size
      flight.upper = flight.lower &+ size
    } else {
      flight.lower = UInt64(head.segment) &* UInt64(Descriptor.unit)
      flight.upper = flight.lower &+ UInt64(ledger.segmentSize)
    }
    guard flights.freeCount > 0 else {
      self.count(place, .droppedFull)
      drop(slots + first, count &- first, flight, &ledger, &instances)
      return true
    }
    flight.since = now
    flight.number = instances.tap.number(of: slot)
    let number = flights.take()
    flights[number] = flight
    let pieces = flights.pieces(number)
    for position in first..<count { pieces[position &- first] = slots[position] }
    let isChecked =
      slots.pointee.flags.contains(.checksumValid) || head.flags.contains(.checksumValid)
    hand(
      number, to: place,
      StagedPacket(
        number: 0, way: flight.way,
        metadata: Offload(slots.pointee) ?? Offload(), isChecked: isChecked,
        position: head.position, byteCount: head.length, roomBefore: 0, roomBehind: 0),
      &ledger, &instances)
    return true
  }

  /// Gives a flight to a stage that runs; where that has no room, the packet ends.
  /// - Parameter packet: its number, room and what is unseen are filled in here.
  mutating func hand(
    _ number: Int, to place: Int, _ packet: StagedPacket, _ ledger: inout SegmentLedger,
    _ instances: inout InstanceTable
  ) {
    flights[number].holder = .stage
    flights[number].place = UInt8(truncatingIfNeeded: place)
    guard let port = port(place), port.pointee.hasRoom() else {
      count(place, .droppedFull)
      end(number, &ledger, &instances)
      return
    }
    let flight = flights[number]
    var packet = packet
    packet.number = UInt16(truncatingIfNeeded: number)
    packet.unseenBytes = flight.unseen
    packet.roomBefore = UInt32(truncatingIfNeeded: packet.position &- flight.lower)
    packet.roomBehind = UInt32(
      truncatingIfNeeded: flight.upper &- packet.position &- UInt64(packet.byteCount))
    port.pointee.enter(packet)
    touched |= 1 &<< UInt8(truncatingIfNeeded: place)
    if flight.origin != .spare { count(place, .received) }
  }

  /// Where a packet goes next.
  enum Step {
    case stage(Int)
    /// To the instances, or to the wire.
    case out
    case dropped
  }

  /// Looks for the next stage that runs; those that do not and may be left out are left out.
  /// - Parameter flight: its way, and what it has been through.
  mutating func nextStep(
    _ flight: StagedFlight, position: UInt64, byteCount: UInt32,
    _ instances: inout InstanceTable
  ) -> Step {
    var passed = flight.passed
    while let place = Self.next(flight.way, passed, position, byteCount, &instances) {
      if isUp(place) { return .stage(place) }
      if instances.table.stages.failsClosed &>> UInt8(truncatingIfNeeded: place) & 1 != 0 {
        count(place, .droppedDown)
        return .dropped
      }
      count(place, .bypassed)
      passed |= 1 &<< UInt8(truncatingIfNeeded: place)
    }
    return .out
  }

  /// Those for all packets come first, then those that a rule names.
  private static func next(
    _ way: StagedPacket.Way, _ passed: UInt8, _ position: UInt64, _ byteCount: UInt32,
    _ instances: inout InstanceTable
  ) -> Int? {
    if let place = instances.table.stages.next(way, passed: passed) { return place }
    guard way == .receive, let rules = instances.table.rules, rules.hasStages else { return nil }
    let frame = instances.window + Int(position)
    let packet = PacketHeader(frame: frame, byteCount: Int(byteCount))
    return rules.stage(for: packet, frame, byteCount: Int(byteCount), passed: passed)
  }

  // MARK: Memory for packets of their own

  /// Each stage has some of the host's free segments, as long as there are many.
  private mutating func lendSpares(
    _ port: Port, _ ledger: inout SegmentLedger, _ instances: inout InstanceTable
  ) {
    while port.pointee.spares < StagedPacket.spares, flights.freeCount > 64,
      ledger.hostCount > 64, port.pointee.hasRoom()
    {
      ledger.lend(upTo: 1, into: &lending)
      guard !lending.isEmpty else { return }
      let piece = lending[0]
      lending.removeAll()
      var flight = StagedFlight()
      flight.origin = .spare
      flight.way = .none
      flight.pieces = 1
      flight.lower = UInt64(piece.segment) &* UInt64(Descriptor.unit)
      flight.upper = flight.lower &+ UInt64(ledger.segmentSize)
      let number = flights.take()
      flights[number] = flight
      flights.pieces(number).pointee = piece
      port.pointee.spares &+= 1
      hand(
        number, to: port.pointee.place,
        StagedPacket(
          number: 0, way: .none, position: piece.position, byteCount: 0, roomBefore: 0,
          roomBehind: 0), &ledger, &instances)
    }
  }

  // MARK: Turns

  /// Takes what stages have given back, as far as there is room, and lends what they lack.
  /// - Returns: whether there was anything.
  @inline(never) @usableFromInline
  mutating func serve(
    _ ledger: inout SegmentLedger, _ instances: inout InstanceTable, _ times: inout PathTimes
  ) -> Bool {
    var worked = false
    var set = up
    while set != 0 {
      let place = set.trailingZeroBitCount
      set &= set &- 1
      guard let port = port(place) else { continue }
      if port.pointee.spares < StagedPacket.spares { lendSpares(port, &ledger, &instances) }
      if leave(port, &ledger, &instances, &times) { worked = true }
    }
    deliverArrived(&ledger, &instances)
    return worked
  }

  /// Hands over what has entered, and wakes those that sleep.
  @inline(never) @usableFromInline
  mutating func ring() {
    var set = touched & up
    while set != 0 {
      let place = set.trailingZeroBitCount
      set &= set &- 1
      guard let port = port(place) else { continue }
      port.pointee.push()
      port.pointee.channel.doorbell.ring()
    }
    touched = 0
  }

  /// Whether all stages have said nothing since their doorbells were armed, and nothing waits to leave.
  @usableFromInline
  mutating func prepareToSleep(isBlocked: Bool) -> Bool {
    var maySleep = departing.isEmpty || isBlocked
    var set = up
    while set != 0 {
      let place = set.trailingZeroBitCount
      set &= set &- 1
      guard let port = port(place) else { continue }
      let isQuiet = port.pointee.channel.prepareToSleep()
      if !isQuiet || port.pointee.next < port.pointee.leaving.count {
        maySleep = maySleep && isBlocked && !departing.isEmpty
      }
    }
    return maySleep
  }

  @usableFromInline
  func wake() {
    for place in 0..<StagePlan.maximumStages where isUp(place) {
      port(place)?.pointee.channel.doorbell.awake()
    }
  }

  // MARK: Coming and going

  /// What the control thread wants changed of stages.
  @inline(never) @usableFromInline
  mutating func takeUpdate(_ ledger: inout SegmentLedger, _ instances: inout InstanceTable) {
    let update = instances.mailbox.take()
    if let place = update.pointee.closeStage { close(place, .detached, &ledger, &instances) }
    if let port = update.pointee.installStage {
      let place = port.pointee.place
      precondition(ports[place] == nil)
      ports[place] = port
      up |= 1 &<< UInt8(truncatingIfNeeded: place)
    }
    if !update.pointee.table.stages.isEmpty { isOn = true }
  }

  /// Nothing more is given to a stage or taken from it: packets that it had are lost.
  mutating func close(
    _ place: Int, _ reason: EndReason, _ ledger: inout SegmentLedger,
    _ instances: inout InstanceTable
  ) {
    guard isUp(place), let port = port(place) else { return }
    up &= ~(1 &<< UInt8(truncatingIfNeeded: place))
    for number in 0..<StagedFlights.capacity
    where flights[number].holder == .stage && Int(flights[number].place) == place {
      if flights[number].origin != .spare { count(place, .droppedLost) }
      end(number, &ledger, &instances)
    }
    handBackEnded(&instances)
    port.pointee.end.close(reason)
    port.pointee.channel.doorbell.ringAlways()
    ports[place] = nil
    if reason != .detached { instances.mailbox.offendedByStage(place, reason) }
  }

  private func counted(_ place: Int, _ counter: StageCounter) -> UInt64 {
    counts[place &* StageCounter.count &+ counter.rawValue]
  }

  func publish(to statistics: HostStatistics) {
    for place in 0..<StagePlan.maximumStages {
      let gone = [StageCounter.passed, .dropped, .droppedLost].reduce(0) {
        $0 &+ counted(place, $1)
      }
      counts[place &* StageCounter.count &+ StageCounter.inside.rawValue] =
        counted(place, .received) &- gone
    }
    for index in 0..<Self.words where counts[index] != published[index] {
      statistics.add(counts[index] &- published[index], stageWord: index)
      published[index] = counts[index]
    }
  }
}
