import CLinux
import Channel
import Driver
import Glibc
import Memory
import Steering

/// The control thread's side of many instances: takes the supervisor's messages, maps and unmaps memory, and hands each
/// change to the queue threads. It never waits: what it has begun goes on in ``service()``. What the supervisor says is
/// checked: whoever can speak for it must not make the host map one instance's memory over another's.
///
/// One change is with the queue threads at a time; they take it at the beginning of a turn.
final class InstanceControl {
  let plan: SharedPlan
  let window: MemoryWindow
  let mailboxes: [PathMailbox]
  let wakes: [WakeSet]
  let statistics: HostStatistics
  let supervisor: SupervisorSocket
  /// nil where nobody can capture.
  private let captures: HostCaptures?

  var instances: [Int: AttachedInstance] = [:]
  /// Claims of all instances, in the order in which they were made.
  var claims: [(instance: Int, claim: Claim)] = []
  /// What stands before claims; nil where there are no rules.
  var rules: RuleProgram?
  /// What packets go through before they come here, by place.
  var stages: [Int: PlannedStage] = [:]
  var stagePlan = StagePlan()
  private var table: ForwardingTableBox
  /// Whether who gets what has changed since ``takeStationFilter()``.
  private var hasNewTable = false
  /// What the supervisor has asked for and has not been begun.
  private var requests: [(message: ControlMessage, descriptors: [Int32])] = []
  private var current: Change?
  private var replacedMemory = linux_bus_guard_replaced()

  /// More is not kept: a supervisor that asks faster than it is answered is out of order.
  private static let maximumRequests = 1024

  /// A change that is with the queue threads.
  private struct Change {
    var updates: [UnsafeMutablePointer<PathUpdate>]
    /// The table before, which may be dropped afterwards.
    var oldTable: ForwardingTableBox?
    /// What to tell the supervisor then.
    var answer: String?
    /// Of a stage that they close.
    var oldChannel: StageChannel?
  }

  /// - Parameters:
  ///   - window: the host's own arena is mapped at its start.
  ///   - wakes: what wakes the queue threads, one for each queue pair.
  ///   - changed: an eventfd that the queue threads ring for the control thread.
  init(
    plan: SharedPlan, window: consuming MemoryWindow, wakes: [WakeSet], changed: Int32,
    statistics: HostStatistics, supervisor: SupervisorSocket, captures: HostCaptures? = nil
  ) {
    self.captures = captures
    self.plan = plan
    self.window = window
    self.wakes = Array(wakes.prefix(plan.interface.queuePairs))
    self.statistics = statistics
    self.supervisor = supervisor
    mailboxes = (0..<plan.interface.queuePairs).map { _ in PathMailbox(changed: changed) }
    table = ForwardingTableBox(station: plan.station)
  }

  /// After the queue threads have ended and the device has stopped.
  deinit {
    // The guards of their memory end before the window does.
    instances = [:]
    for update in current?.updates ?? [] { update.deallocate() }
    for request in requests { for descriptor in request.descriptors { Glibc.close(descriptor) } }
    for mailbox in mailboxes { mailbox.deallocate() }
  }

  /// What a queue thread begins with.
  private func table(queue: Int, receiveBytes: Int) -> InstanceTable {
    let part = (plan.hostArenaBytes - receiveBytes) / mailboxes.count / HeaderSlots.byteCount
    return InstanceTable(
      mailbox: mailboxes[queue], table: table.table(queue: queue), window: window.address,
      headers: HeaderSlots(
        arena: window.address, first: receiveBytes + queue * part * HeaderSlots.byteCount,
        byteCount: part * HeaderSlots.byteCount), limits: FrameLimits(plan.interface),
      tap: captures?.tap(
        queue: queue,
        packets: DMARange(address: window.address, iova: 0, byteCount: window.byteCount)) ?? .none)
  }

  /// One path for each queue pair, with an equal part of the host's receive segments and header places.
  func makePaths<D: NetworkDriver & ~Copyable>(
    _ device: inout D, receiveBytes: Int
  ) -> PathArray<SharedPath<D.QueuePair>> {
    var paths = PathArray<SharedPath<D.QueuePair>>(capacity: mailboxes.count)
    for queue in mailboxes.indices {
      paths.append(
        SharedPath(
          queuePair: device.takeQueuePair(queue),
          instances: table(queue: queue, receiveBytes: receiveBytes),
          ledger: plan.hostLedger(queue: queue, receiveBytes: receiveBytes)))
    }
    return paths
  }

  /// A message of the supervisor about an instance. Its descriptors are the host's from now on.
  func take(_ message: ControlMessage, _ descriptors: [Int32]) {
    guard requests.count < Self.maximumRequests else {
      refuse(message, "too many requests are waiting", descriptors)
      return
    }
    requests.append((message, descriptors))
  }

  /// Goes on with what has been begun, and begins what can be.
  func service() {
    noteLostMemory()
    repeat {
      if let current {
        guard mailboxes.allSatisfy({ $0.isEmpty }) else { return }
        finish(current)
      }
      closeOffenders()
      reportStageOffenders()
      if current != nil { continue }
      noteReleased()
      noteSettled()
      if current != nil { continue }
      while current == nil, !requests.isEmpty {
        let (message, descriptors) = requests.removeFirst()
        do throws(Refusal) {
          try begin(message, descriptors)
        } catch {
          refuse(message, error.reason, descriptors)
        }
      }
    } while current != nil && mailboxes.allSatisfy({ $0.isEmpty })
  }

  // MARK: Changes

  func post(
    _ answer: String?, newTable: ForwardingTableBox? = nil, keeping channel: StageChannel? = nil,
    _ body: (Int, inout PathUpdate) -> Void
  ) {
    let oldTable = newTable == nil ? nil : table
    if let newTable {
      table = newTable
      hasNewTable = true
    }
    var updates: [UnsafeMutablePointer<PathUpdate>] = []
    for queue in mailboxes.indices {
      let update = UnsafeMutablePointer<PathUpdate>.allocate(capacity: 1)
      var change = PathUpdate(table: table.table(queue: queue))
      body(queue, &change)
      update.initialize(to: change)
      updates.append(update)
      mailboxes[queue].put(update)
      wakes[queue].ring()
    }
    current = Change(
      updates: updates, oldTable: oldTable, answer: answer, oldChannel: channel)
  }

  private func finish(_ change: Change) {
    for update in change.updates { update.deallocate() }
    current = nil
    if let answer = change.answer { supervisor.say(answer) }
  }

  /// Instances that a queue thread has closed are closed on all queues, and the supervisor hears why.
  private func closeOffenders() {
    for (index, instance) in instances where !instance.isClosed && !instance.isLeaving {
      let reasons = mailboxes.map { $0.reason(index) }.filter { $0 != .none }
      guard let reason = reasons.first, current == nil else { continue }
      close(instance, reason)
    }
  }

  private func close(_ instance: AttachedInstance, _ reason: EndReason) {
    instance.isClosed = true
    post("closed id=\(instance.id) reason=\(reason.name)") {
      $1.close = instance.index
      $1.reason = reason
    }
  }

  private func noteLostMemory() {
    let replaced = linux_bus_guard_replaced()
    if replaced == replacedMemory || current != nil { return }
    let losers = instances.values.filter { !$0.isClosed && !$0.isLeaving && $0.hasLostMemory }
    guard let first = losers.first else {
      replacedMemory = replaced
      return
    }
    close(first, .lostMemory)
    statistics.add(1, shared: SharedCounter.closed.rawValue)
  }

  /// Memory of those that all queue threads have let go of is unmapped.
  private func noteReleased() {
    for (index, instance) in instances
    where instance.isLeaving && mailboxes.allSatisfy({ $0.state(index) == .released }) {
      let reasons = mailboxes.map { $0.reason(index) }.filter { $0 != .none }
      for mailbox in mailboxes { mailbox.forget(index) }
      forget(instance)
      let reason = reasons.first ?? (instance.isClosed ? .lostMemory : .detached)
      supervisor.say("detached id=\(instance.id) reason=\(reason.name)")
    }
  }

  /// No queue thread has an instance any more: its memory goes.
  func forget(_ instance: AttachedInstance) {
    instances[instance.index] = nil
    try? instance.unmap(to: 0, in: window)
    for offset in instance.registrations.keys {
      try? instance.unregister(at: offset, in: window)
    }
    statistics.show(false, instance: instance.index)
  }

  private func noteSettled() {
    for (index, instance) in instances where current == nil {
      guard let before = instance.settledBefore else { continue }
      let isGone = mailboxes.indices.allSatisfy {
        mailboxes[$0].state(index) == .released || mailboxes[$0].settled(index) != before[$0]
      }
      guard isGone else { continue }
      instance.settledBefore = nil
      switch instance.removals.removeFirst() {
      case .shrink(let byteCount):
        try? instance.unmap(to: byteCount, in: window)
        supervisor.say("shrunk id=\(instance.id)")
      case .unregister(let offset):
        try? instance.unregister(at: offset, in: window)
        supervisor.say("unregistered id=\(instance.id) offset=\(offset)")
      }
      beginRemoval(instance)
    }
  }

  // MARK: Who gets what

  /// What the device has to let through; nil where that cannot have changed.
  func takeStationFilter() -> StationFilter? {
    guard hasNewTable else { return nil }
    hasNewTable = false
    return StationFilter(
      station: plan.station, claims: claims.lazy.map(\.claim), rules: rules?.set.rules ?? [],
      hasStages: !stages.isEmpty)
  }

  func makeTable() throws(ClaimConflict) -> ForwardingTableBox {
    let staying = instances.values.filter { !$0.isLeaving }
    return ForwardingTableBox(
      try DeliveryTable(
        station: plan.station, claims: claims,
        attached: staying.reduce(0) { $0 | bit($1.index) }),
      rules: rules.map {
        RuleTableBox(
          $0, instances: staying.map { ($0.index, $0.name) },
          stages: Dictionary(uniqueKeysWithValues: stages.values.map { ($0.name, $0.place) }))
      }, stages: stagePlan)
  }

  /// A table of claims that stand beside each other already.
  func tableOfNow() -> ForwardingTableBox {
    do throws(ClaimConflict) {
      return try makeTable()
    } catch {
      preconditionFailure("\(error)")
    }
  }
}
