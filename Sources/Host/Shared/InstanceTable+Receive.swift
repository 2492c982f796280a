import CLinux
import Capture
import Memory
import Steering

/// How busy the interface is, and how much of the host's work each instance may have while there is more than can be done.
/// One thread.
struct ReceiveLoad {
  /// Full bursts from the device, one after the other.
  private var fullBursts = 0
  /// Work that is wanted in this burst, by whom, and their weights.
  private var work = 0
  private var wanted: UInt64 = 0
  private var weights = 0
  /// What a weight of 1 gets in each burst; 0 while there is time for all.
  private(set) var share = 0

  /// The interface is overloaded from so many full bursts on.
  private static let patience = 4

  var isOverloaded: Bool { share > 0 }

  /// A burst has come.
  mutating func begin(isFull: Bool) {
    fullBursts = isFull ? fullBursts &+ 1 : 0
    // Who is alone takes nothing from anybody. A quarter more than an equal share keeps those that are equal from losing
    // by chance.
    let isContested = wanted & (wanted &- 1) != 0
    share = fullBursts > Self.patience && isContested ? max(1, work &* 5 / (4 &* weights)) : 0
    work = 0
    wanted = 0
    weights = 0
  }

  /// An instance would get a packet that costs so much.
  mutating func note(_ index: Int, weight: Int, cost: Int) {
    work &+= cost
    if wanted & bit(index) == 0 {
      wanted |= bit(index)
      weights &+= weight
    }
  }
}

/// The host's work for a packet, in the unit of time that a byte takes.
enum PacketCost {
  static let packet = 256
  static let piece = 64
  /// A wake, and looking for work in vain afterwards.
  static let wake = 16_384

  @inline(__always)
  static func of(pieces: Int, bytes: Int) -> Int { packet &+ pieces &* piece &+ bytes }
}

extension InstanceTable {
  /// Copies received packets to whom they are for; the burst's segments are the host's again afterwards.
  /// - Parameter numbers: of packets that come from stages, as captures number them from this burst on.
  @usableFromInline
  mutating func deliver(_ received: borrowing Burst, numbers: UnsafePointer<Int>? = nil) {
    if received.isEmpty { return }
    load.begin(isFull: received.count >= Descriptor.maximumSlots)
    if load.isOverloaded { giveCredit() }
    if table.rules?.hasLimits ?? false { noteBurstTime() }
    let slots = received.start
    var first = 0
    var packet = 0
    while first < received.count {
      guard let last = received.endOfPacket(from: first) else { break }
      deliver(slots + first, last &- first &+ 1, number: numbers?[packet] ?? first)
      first = last &+ 1
      packet &+= 1
    }
    pushDelivered()
  }

  @inline(never)
  mutating func noteBurstTime() { burstTime = monotonic_nanoseconds() }

  /// - Parameter number: the packet's place in the burst.
  private mutating func deliver(
    _ slots: UnsafePointer<Descriptor>, _ count: Int, number: Int
  ) {
    let isDescribed = slots.pointee.flags.contains(.offload)
    if isDescribed && count == 1 { return }
    let piece = slots[isDescribed ? 1 : 0]
    var bytes = 0
    for position in 0..<count where !(slots + position).isOffload {
      bytes &+= Int(slots[position].length)
    }
    let verdict = verdict(window + Int(piece.position), Int(piece.length))
    var mark: UInt16 = 0
    var rule = CaptureRecord.noRule
    var set = recipients(verdict, bytes, &mark, &rule)
    while set != 0 {
      deliver(
        slots, count, to: set.removeFirstInstance(), pieces: isDescribed ? count &- 1 : count,
        bytes: bytes, mark: mark, rule: rule, number: number)
    }
  }

  /// What rules and claims say of a packet: as of the one before it of its flow, or as its headers are.
  @inline(__always)
  private mutating func verdict(_ frame: UnsafeRawPointer, _ byteCount: Int) -> FlowVerdict {
    guard let key = flows.key(frame, byteCount) else { return lookUp(frame, byteCount) }
    return flows.find(key) ?? lookUpAndRemember(frame, byteCount)
  }

  @inline(never)
  private mutating func lookUp(_ frame: UnsafeRawPointer, _ byteCount: Int) -> FlowVerdict {
    let packet = PacketHeader(frame: frame, byteCount: byteCount)
    if packet.kind == .tagged { counts[.tagged] &+= 1 }
    var verdict = FlowVerdict()
    if let rules = table.rules {
      let index = rules.classifier.match(packet, frame: frame, byteCount: byteCount)
      if index >= 0, !rules.settle(&verdict, index, packet) { return verdict }
    }
    verdict.recipients |= table.claims.recipients(of: packet, &verdict.reason)
    return verdict
  }

  /// Of a copy of the headers: whoever shares the memory could else have us remember of one flow what is true of another.
  @inline(never)
  private mutating func lookUpAndRemember(
    _ frame: UnsafeRawPointer, _ byteCount: Int
  ) -> FlowVerdict {
    withUnsafeTemporaryAllocation(byteCount: PacketHeader.maximumBytes, alignment: 8) { copy in
      let byteCount = min(byteCount, copy.count)
      copy.copyMemory(from: UnsafeRawBufferPointer(start: frame, count: byteCount))
      let head = UnsafeRawPointer(copy.baseAddress!)
      let verdict = lookUp(head, byteCount)
      if let key = FlowKey(frame: head, byteCount: byteCount) { flows.remember(key, verdict) }
      return verdict
    }
  }

  /// Who gets a packet: a rule decides, or claims do. Why nobody does is counted.
  /// - Parameters:
  ///   - total: bytes of the packet.
  ///   - mark: what a rule says of it.
  ///   - rule: the number of the rule that matches it.
  @inline(__always)
  private mutating func recipients(
    _ verdict: FlowVerdict, _ total: Int, _ mark: inout UInt16, _ rule: inout UInt32
  ) -> UInt64 {
    if verdict.rule >= 0, let rules = table.rules {
      rule = rules.number(Int(verdict.rule))
      mark = verdict.mark
      rules.count(verdict, bytes: total)
      if !verdict.isSettled { return unsettledRecipients(verdict, rules, total) }
    }
    let chosen = verdict.recipients & open
    if chosen == 0 { noteUnwanted(verdict) }
    return chosen
  }

  @inline(never)
  private mutating func unsettledRecipients(
    _ verdict: FlowVerdict, _ rules: RuleTable, _ total: Int
  ) -> UInt64 {
    let decision = rules.decide(verdict, total: total, open: open, now: burstTime)
    if decision.isDropped { counts[.droppedByRule] &+= 1 }
    if !decision.isLeftToClaims { return decision.recipients }
    let chosen = verdict.recipients & open
    if chosen == 0 { noteUnwanted(verdict) }
    return chosen
  }

  @inline(never)
  private mutating func noteUnwanted(_ verdict: FlowVerdict) {
    if verdict.rule >= 0, let rules = table.rules, rules.noteUnwanted(verdict) {
      counts[.droppedByRule] &+= 1
      return
    }
    switch verdict.reason {
    case .unclaimed: counts[.droppedUnclaimed] &+= 1
    case .foreign: counts[.droppedForeign] &+= 1
    case .malformed: counts[.droppedMalformed] &+= 1
    }
  }

  private mutating func deliver(
    _ slots: UnsafePointer<Descriptor>, _ count: Int, to index: Int, pieces: Int, bytes: Int,
    mark: UInt16, rule: UInt32, number: Int
  ) {
    let port = port(index)
    let cost = PacketCost.of(pieces: pieces, bytes: bytes)
    load.note(index, weight: port.pointee.weight, cost: cost)
    note(index, cost: cost)
    if spent & bit(index) != 0 {
      port.pointee.counts[.droppedBudget] &+= 1
      return
    }
    if load.isOverloaded {
      if port.pointee.receiveCredit <= 0 {
        port.pointee.counts[.droppedBudget] &+= 1
        return
      }
      port.pointee.receiveCredit &-= cost
    }
    if touched & bit(index) == 0 {
      touched |= bit(index)
      port.pointee.receiveRoom = port.pointee.channel.receive.room()
      noteWork(index)
    }
    if port.pointee.receiveRoom < count {
      port.pointee.counts[.droppedRingFull] &+= 1
      return
    }
    if port.pointee.ledger.hostCount < pieces
      || port.pointee.ledger.instanceCount &+ pieces > port.pointee.segmentLimit
    {
      port.pointee.counts[.droppedNoSegment] &+= 1
      return
    }
    if port.pointee.delivering.room < count { port.pointee.pushDelivered() }
    port.pointee.receiveRoom &-= count
    port.pointee.copy(slots, count, from: window, mark: mark)
    if tap.isOnInstances {
      tap.capture(
        .channelReceive, slots, count, number: number, instance: port.pointee.id,
        base: 0, rule: rule)
    }
  }

  /// Receive rings: there is room for all of it, which has been looked at before.
  private mutating func pushDelivered() {
    var set = touched & open
    while set != 0 {
      port(set.removeFirstInstance()).pointee.pushDelivered()
    }
  }

  /// While there is more than can be done, each gets its share in each burst, and keeps that of a few.
  private mutating func giveCredit() {
    var set = open
    while set != 0 {
      let port = port(set.removeFirstInstance())
      let share = load.share &* port.pointee.weight
      port.pointee.receiveCredit = min(port.pointee.receiveCredit &+ share, 4 &* share)
    }
  }
}
