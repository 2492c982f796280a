import CLinux
import Capture
import Channel
import Memory
import Steering

/// The instances on one queue pair, as its thread sees them: who there is, who has something to do, and whose turn it is.
/// Deliveries are in InstanceTable+Receive.swift, sending in InstanceTable+Transmit.swift.
///
/// Sets of instances are words with a bit for each. What an instance does against the rules ends that instance, never the
/// thread. One thread; the control thread talks to it by a ``PathMailbox``.
@usableFromInline
struct InstanceTable: ~Copyable {
  @usableFromInline typealias Port = UnsafeMutablePointer<InstancePort>

  // Invariant: `ports` has 64 initialised elements, and one that is not nil for each bit of `attached`, which is this
  // thread's alone until it has said that it is released.
  @usableFromInline let ports: UnsafeMutablePointer<Port?>
  @usableFromInline let mailbox: PathMailbox
  var table: ForwardingTable
  /// The window's first byte, in this process; the host's own arena lies there.
  let window: UnsafeMutableRawPointer
  let limits: FrameLimits
  @usableFromInline var headers: HeaderSlots
  @usableFromInline let counts = CounterBlock<SharedCounter>()
  @usableFromInline let tap: CaptureTap

  /// Those with a port.
  private var attached: UInt64 = 0
  /// Those among them that have not been closed.
  var open: UInt64 = 0
  /// Those that had something to do not long ago: they are looked at in each turn.
  private var active: UInt64 = 0
  /// Those that are looked at in this turn.
  var polled: UInt64 = 0
  /// Those to whom something has been given in this turn: their doorbells are due.
  var touched: UInt64 = 0
  /// Those whose completions wait for room in their rings.
  var owed: UInt64 = 0
  /// Those from which memory was taken while packets of theirs were with the device.
  private var settling: UInt64 = 0
  /// Those whose time is limited, and those among them that have none left.
  var limited: UInt64 = 0
  var spent: UInt64 = 0
  /// When time was last charged and granted, in nanoseconds of the monotonic clock, and how much the thread had used then.
  var settledAt: UInt64 = 0
  var usedUntil: UInt64 = 0
  /// What the work since then costs.
  var work = 0
  private var turns: UInt64 = 0
  /// Who is first to send in the next round.
  var firstToSend = 0
  var load = ReceiveLoad()
  var flows = FlowCache()
  /// When the burst came, in nanoseconds of the monotonic clock, where rules have limits.
  var burstTime: UInt64 = 0
  private var replacedMemory: UInt32 = 0

  /// Turns without work after which an instance is looked at only now and then.
  private static let activeTurns = 64

  init(
    mailbox: PathMailbox, table: ForwardingTable, window: UnsafeMutableRawPointer,
    headers: consuming HeaderSlots, limits: FrameLimits, tap: CaptureTap = .none
  ) {
    ports = .allocate(capacity: 64)
    ports.initialize(repeating: nil, count: 64)
    self.mailbox = mailbox
    self.table = table
    self.window = window
    self.headers = headers
    self.limits = limits
    self.tap = tap
    forgetFlows()
  }

  @inlinable
  deinit { ports.deallocate() }

  /// Whether nobody but one has had anything to do of late: it need not leave room for others.
  var isOneActive: Bool { active & (active &- 1) == 0 }

  @inline(__always)
  func port(_ index: Int) -> Port {
    guard let port = ports[index] else { preconditionFailure() }
    return port
  }

  /// Chooses who is looked at in this turn: all that are active, and of the others four in turn.
  @usableFromInline
  mutating func beginTurn() {
    turns &+= 1
    if limited != 0 && turns & 15 == 0 { settleTime() }
    polled = (active | 0xf &<< (turns &<< 2 & 63)) & open & ~spent
    // Another process may take memory away under us: whose it was the control thread finds out.
    if turns & 255 == 0 {
      let replaced = linux_bus_guard_replaced()
      if replaced != replacedMemory {
        replacedMemory = replaced
        mailbox.tell()
      }
    }
  }

  /// Free rings: the instances give receive segments back.
  /// - Returns: whether there were any.
  @usableFromInline
  mutating func takeReturnedSegments() -> Bool {
    var worked = false
    var set = polled
    while set != 0 {
      let index = set.removeFirstInstance()
      let port = port(index)
      var offence = EndReason.none
      if port.pointee.takeReturnedSegments(&offence) {
        worked = true
        noteWork(index)
        note(index, cost: PacketCost.packet)
      } else {
        noteIdle(index)
      }
      if offence != .none { close(index, offence) }
    }
    return worked
  }

  mutating func noteWork(_ index: Int) {
    active |= bit(index)
    port(index).pointee.idleTurns = 0
  }

  private mutating func noteIdle(_ index: Int) {
    let port = port(index)
    port.pointee.idleTurns &+= 1
    if port.pointee.idleTurns > Self.activeTurns { active &= ~bit(index) }
  }

  /// Wakes those to whom something has been given.
  @usableFromInline
  mutating func ringDoorbells() {
    var set = touched & open
    while set != 0 { port(set.removeFirstInstance()).pointee.channel.doorbell.ring() }
    touched = 0
  }

  // MARK: Completions

  /// The device has done with packets: each goes back to who sent it. The burst is empty afterwards.
  @usableFromInline
  mutating func complete(_ completed: inout Burst) {
    for position in 0..<completed.count {
      let flight = headers.land(completed[position].tag)
      let index = Int(flight.instance)
      port(index).pointee.land(flight)
      note(index, cost: PacketCost.piece)
      owed |= bit(index)
    }
    completed.removeAll()
    if owed != 0 { handBack() }
  }

  /// Completion rings: what an instance does not drain waits with its port.
  private mutating func handBack() {
    var set = owed
    while set != 0 {
      let index = set.removeFirstInstance()
      let port = port(index)
      if port.pointee.isClosed {
        owed &= ~bit(index)
        if port.pointee.inFlightCount == 0 { release(index) }
        continue
      }
      if port.pointee.handBack() { touched |= bit(index) }
      if port.pointee.owesNothing { owed &= ~bit(index) }
      if settling & bit(index) != 0 && port.pointee.isSettled {
        settling &= ~bit(index)
        mailbox.settle(index)
      }
    }
  }

  // MARK: Coming and going

  /// What the control thread wants changed.
  @inline(never) @usableFromInline
  mutating func takeUpdate() {
    let update = mailbox.take()
    table = update.pointee.table
    forgetFlows()
    if let port = update.pointee.install {
      let index = port.pointee.index
      precondition(ports[index] == nil)
      ports[index] = port
      attached |= bit(index)
      open |= bit(index)
      active |= bit(index)
      if !port.pointee.owesNothing { owed |= bit(index) }
      if port.pointee.time.isLimited { limited |= bit(index) }
      mailbox.set(.installed, index)
    }
    if let index = update.pointee.close, open & bit(index) != 0 {
      end(index, update.pointee.reason)
    }
    if let (index, transmitEnd) = update.pointee.resize, open & bit(index) != 0 {
      resize(index, transmitEnd)
    }
    if let (index, range, isRegistered) = update.pointee.register, open & bit(index) != 0 {
      port(index).pointee.registered.set(range, isRegistered: isRegistered)
      if !isRegistered { beginSettling(index) }
    }
    mailbox.taken()
  }

  private mutating func forgetFlows() {
    flows.forget(isSufficient: table.rules?.classifier.asksForHeadersOnly ?? true)
  }

  private mutating func resize(_ index: Int, _ transmitEnd: UInt64) {
    let port = port(index)
    let isSmaller = transmitEnd < port.pointee.transmitPart.upperBound
    port.pointee.transmitPart =
      port.pointee.transmitPart
      .lowerBound..<max(
        transmitEnd, port.pointee.transmitPart.lowerBound)
    if isSmaller { beginSettling(index) }
  }

  /// Packets from now on are counted apart: when those before have landed, nothing of what was taken is with the device.
  private mutating func beginSettling(_ index: Int) {
    let port = port(index)
    port.pointee.epoch ^= 1
    if port.pointee.isSettled { mailbox.settle(index) } else { settling |= bit(index) }
  }

  /// An instance has broken the channel's rules.
  @inline(never)
  mutating func close(_ index: Int, _ reason: EndReason) {
    guard open & bit(index) != 0 else { return }
    counts[.closed] &+= 1
    mailbox.offended(index, reason)
    end(index, reason)
  }

  /// Nothing more is given to an instance or taken from it; it is let go of when the device has done with its packets.
  private mutating func end(_ index: Int, _ reason: EndReason) {
    let port = port(index)
    open &= ~bit(index)
    active &= ~bit(index)
    polled &= ~bit(index)
    settling &= ~bit(index)
    limited &= ~bit(index)
    spent &= ~bit(index)
    port.pointee.isClosed = true
    port.pointee.delivering.removeAll()
    port.pointee.completed.removeAll()
    port.pointee.end.close(reason)
    port.pointee.channel.doorbell.ringAlways()
    if port.pointee.inFlightCount == 0 { release(index) }
  }

  private mutating func release(_ index: Int) {
    port(index).pointee.ledger.reclaimFromInstance()
    ports[index] = nil
    attached &= ~bit(index)
    owed &= ~bit(index)
    mailbox.set(.released, index)
  }

  // MARK: Rest

  /// Whether all instances have said nothing since their doorbells were armed, and nothing waits to be sent.
  /// - Parameter isBlocked: nothing more can be sent before the device has done with something.
  mutating func prepareToSleep(isBlocked: Bool) -> Bool {
    if mailbox.hasUpdate { return false }
    var maySleep = true
    var set = open
    while set != 0 {
      let index = set.removeFirstInstance()
      // The next grant wakes us.
      if spent & bit(index) != 0 { continue }
      let port = port(index)
      let isQuiet = port.pointee.channel.prepareToSleep()
      // Completions that found no room: the instance may have made some since, before it was told that we sleep.
      let canHandBack =
        !port.pointee.completed.isEmpty && port.pointee.channel.completion.room() > 0
      // What an instance has to send waits until it has taken back what was sent before.
      let mayWait =
        isBlocked || port.pointee.isHeldBack
        || isQuiet && port.pointee.nextToSend == port.pointee.sending.count
      if mayWait && !canHandBack { continue }
      noteWork(index)
      maySleep = false
    }
    return maySleep
  }

  /// Whoever has woken us is among all of them.
  /// - Parameter rings: those whose doorbells have rung.
  mutating func wake(by rings: UInt64) {
    if limited != 0 {
      noteRings(rings)
      settleTime()
    }
    var set = open
    while set != 0 {
      let index = set.removeFirstInstance()
      port(index).pointee.channel.doorbell.awake()
      if spent & bit(index) == 0 { noteWork(index) }
    }
  }

  /// Packets that are with the device.
  var inFlight: Int { headers.capacity &- headers.freeCount }

  /// Receive segments that instances hold.
  var segmentsWithInstances: Int {
    var count = 0
    var set = attached
    while set != 0 {
      let port = port(set.removeFirstInstance())
      count += port.pointee.ledger.instanceCount + port.pointee.ledger.sendingCount
    }
    return count
  }

  mutating func publish(to statistics: HostStatistics) {
    counts.publish { statistics.add($1, shared: $0) }
    var set = attached
    while set != 0 { port(set.removeFirstInstance()).pointee.publish(to: statistics) }
  }
}

/// The set with one instance in it.
@inline(__always)
func bit(_ index: Int) -> UInt64 { 1 &<< UInt64(truncatingIfNeeded: index) }

extension UInt64 {
  /// Takes the lowest instance out of a set that is not empty.
  @inline(__always)
  mutating func removeFirstInstance() -> Int {
    let index = trailingZeroBitCount
    self &= self &- 1
    return index
  }
}
