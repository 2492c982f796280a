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
  private let window: MemoryWindow
  let mailboxes: [PathMailbox]
  private let doorbells: [Int32]
  private let statistics: HostStatistics
  private let supervisor: SupervisorSocket

  private var instances: [Int: AttachedInstance] = [:]
  /// Claims of all instances, in the order in which they were made.
  private var claims: [(instance: Int, claim: Claim)] = []
  private var table: DeliveryTableBox
  /// What the supervisor has asked for and has not been begun.
  private var requests: [(message: ControlMessage, descriptors: [Int32])] = []
  private var current: Change?
  private var replacedMemory = linux_bus_guard_replaced()

  /// More is not kept: a supervisor that asks faster than it is answered is out of order.
  private static let maximumRequests = 1024
  /// Claims of one instance.
  private static let maximumClaims = 1024

  /// A change that is with the queue threads.
  private struct Change {
    var updates: [UnsafeMutablePointer<PathUpdate>]
    /// The table before, which may be dropped afterwards.
    var oldTable: DeliveryTableBox?
    /// What to tell the supervisor then.
    var answer: String?
  }

  /// - Parameters:
  ///   - window: the host's own arena is mapped at its start.
  ///   - doorbells: of the queue threads, one for each queue pair.
  ///   - changed: an eventfd that the queue threads ring for the control thread.
  init(
    plan: SharedPlan, window: consuming MemoryWindow, doorbells: [Int32], changed: Int32,
    statistics: HostStatistics, supervisor: SupervisorSocket
  ) {
    self.plan = plan
    self.window = window
    self.doorbells = doorbells
    self.statistics = statistics
    self.supervisor = supervisor
    mailboxes = (0..<plan.interface.queuePairs).map { _ in PathMailbox(changed: changed) }
    table = DeliveryTableBox(station: plan.station)
  }

  /// After the queue threads have ended and the device has stopped.
  deinit {
    for update in current?.updates ?? [] { update.deallocate() }
    for request in requests { for descriptor in request.descriptors { Glibc.close(descriptor) } }
    for mailbox in mailboxes { mailbox.deallocate() }
  }

  /// What a queue thread begins with.
  private func table(queue: Int, receiveBytes: Int) -> InstanceTable {
    let part = (plan.hostArenaBytes - receiveBytes) / mailboxes.count / HeaderSlots.byteCount
    return InstanceTable(
      mailbox: mailboxes[queue], rules: table.rules, window: window.address,
      headers: HeaderSlots(
        arena: window.address, first: receiveBytes + queue * part * HeaderSlots.byteCount,
        byteCount: part * HeaderSlots.byteCount), limits: FrameLimits(plan.interface))
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
      if current != nil { continue }
      noteReleased()
      noteSettled()
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

  private func post(
    _ answer: String?, newTable: DeliveryTableBox? = nil, _ body: (Int, inout PathUpdate) -> Void
  ) {
    let oldTable = newTable == nil ? nil : table
    if let newTable { table = newTable }
    var updates: [UnsafeMutablePointer<PathUpdate>] = []
    for queue in mailboxes.indices {
      let update = UnsafeMutablePointer<PathUpdate>.allocate(capacity: 1)
      var change = PathUpdate(rules: table.rules)
      body(queue, &change)
      update.initialize(to: change)
      updates.append(update)
      mailboxes[queue].put(update)
      signal(doorbells[queue])
    }
    current = Change(updates: updates, oldTable: oldTable, answer: answer)
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
      instances[index] = nil
      try? instance.unmap(to: 0, in: window)
      statistics.show(false, instance: index)
      let reason = reasons.first ?? (instance.isClosed ? .lostMemory : .detached)
      supervisor.say("detached id=\(instance.id) reason=\(reason.name)")
    }
  }

  private func noteSettled() {
    for (index, instance) in instances {
      guard let (byteCount, before) = instance.shrinking else { continue }
      let isGone = mailboxes.indices.allSatisfy {
        mailboxes[$0].state(index) == .released || mailboxes[$0].settled(index) != before[$0]
      }
      guard isGone else { continue }
      instance.shrinking = nil
      try? instance.unmap(to: byteCount, in: window)
      supervisor.say("shrunk id=\(instance.id)")
    }
  }

  // MARK: Requests

  /// Why something is not done.
  struct Refusal: Error {
    let reason: String
    init(_ reason: String) { self.reason = reason }
  }

  private func refuse(_ message: ControlMessage, _ reason: String, _ descriptors: [Int32]) {
    for descriptor in descriptors { Glibc.close(descriptor) }
    let text = reason.replacing(" ", with: "_")
    supervisor.say(
      "refused id=\(message["id"] ?? "?") what=\(message.word.isEmpty ? "?" : message.word) reason=\(text)"
    )
  }

  /// - Throws: where it is refused; the descriptors are the caller's then.
  private func begin(_ message: ControlMessage, _ descriptors: [Int32]) throws(Refusal) {
    guard let id: UInt32 = message.number("id") else { throw Refusal("no id") }
    if message.word == "attach" {
      try attach(id, message, descriptors)
      return
    }
    guard let instance = instances[Int(id & 0xff)], instance.id == id, !instance.isLeaving else {
      throw Refusal("no such instance")
    }
    guard descriptors.count == (message.word == "extent" ? 1 : 0) else {
      throw Refusal("wrong number of descriptors")
    }
    switch message.word {
    case "claim": try claim(instance, message)
    case "unclaim": try unclaim(instance, message)
    case "detach": detach(instance)
    case "extent": try extend(instance, message, descriptors[0])
    case "shrink": try shrink(instance, message)
    default: throw Refusal("not understood")
    }
  }

  private func attach(
    _ id: UInt32, _ message: ControlMessage, _ descriptors: [Int32]
  ) throws(Refusal) {
    let order = try AttachOrder(id, message, plan, windowBytes: window.byteCount)
    guard descriptors.count == 3 else { throw Refusal("wrong number of descriptors") }
    guard instances[order.index] == nil else { throw Refusal("its place is taken") }
    let range = order.base..<order.base + order.arenaBytes
    guard !instances.values.contains(where: { $0.overlaps(range) }) else {
      throw Refusal("its part of the window is taken")
    }
    let instance = try makeInstance(order, descriptors)
    instances[order.index] = instance
    statistics.show(true, instance: order.index)
    post("attached id=\(id)", newTable: tableOfNow()) { $1.install = instance.ports[$0] }
  }

  /// Maps all of an instance's memory and makes its ports. Of the descriptors only the eventfd stays open.
  private func makeInstance(
    _ order: AttachOrder, _ descriptors: [Int32]
  ) throws(Refusal) -> AttachedInstance {
    let channel: ChannelMemory
    // What fails closes the descriptor that it was given: the request's stay its own until all has gone well.
    let copy = linux_fcntl(descriptors[1], F_DUPFD_CLOEXEC, 3)
    guard copy >= 0 else { throw Refusal("no descriptor is free") }
    do throws(ChannelError) {
      channel = try ChannelMemory(adopting: copy, layout: order.layout, keepsDescriptor: false)
    } catch {
      throw Refusal(error.description)
    }
    let event = linux_fcntl(descriptors[2], F_DUPFD_CLOEXEC, 3)
    guard event >= 0 else { throw Refusal("no descriptor is free") }
    let instance = AttachedInstance(
      id: order.id, base: order.base, channel: channel, event: event)
    do throws(MemoryError) {
      try instance.map(descriptors[0], byteCount: order.arenaBytes, in: window)
    } catch {
      throw Refusal(error.description)
    }
    for descriptor in descriptors { Glibc.close(descriptor) }
    for queue in mailboxes.indices {
      let port = UnsafeMutablePointer<InstancePort>.allocate(capacity: 1)
      port.initialize(
        to: InstancePort(
          index: order.index,
          channel: HostEnd(instance.channel, queue: queue, peerEvent: instance.doorbell),
          end: instance.channel.end,
          ledger: plan.instanceLedger(queue: queue, receiveBytes: order.receiveBytes),
          arena: window.address + order.base, base: UInt64(order.base),
          transmitPart: UInt64(order.receiveBytes)..<UInt64(order.arenaBytes),
          weight: order.weight, segmentLimit: order.segmentLimit))
      instance.ports.append(port)
    }
    return instance
  }

  private func claim(_ instance: AttachedInstance, _ message: ControlMessage) throws(Refusal) {
    let claim = try Self.claim(message)
    guard instance.claims.count < Self.maximumClaims else { throw Refusal("too many claims") }
    claims.append((instance.index, claim))
    let new: DeliveryTableBox
    do throws(ClaimConflict) {
      new = try makeTable()
    } catch {
      claims.removeLast()
      throw Refusal(error.description)
    }
    instance.claims.append(claim)
    post("claimed id=\(instance.id) claim=\(claim)", newTable: new) { _, _ in }
  }

  private func unclaim(_ instance: AttachedInstance, _ message: ControlMessage) throws(Refusal) {
    let claim = try Self.claim(message)
    guard let place = instance.claims.firstIndex(of: claim) else { throw Refusal("not claimed") }
    instance.claims.remove(at: place)
    claims.removeAll { $0.instance == instance.index && $0.claim == claim }
    post("unclaimed id=\(instance.id) claim=\(claim)", newTable: tableOfNow()) { _, _ in }
  }

  private static func claim(_ message: ControlMessage) throws(Refusal) -> Claim {
    guard let claim = message["claim"].flatMap(Claim.init) else { throw Refusal("no claim") }
    return claim
  }

  private func detach(_ instance: AttachedInstance) {
    instance.isLeaving = true
    instance.shrinking = nil
    claims.removeAll { $0.instance == instance.index }
    post(nil, newTable: tableOfNow()) { $1.close = instance.index }
  }

  private func extend(
    _ instance: AttachedInstance, _ message: ControlMessage, _ descriptor: Int32
  ) throws(Refusal) {
    guard let offset: Int = message.number("offset"), let byteCount: Int = message.number("bytes"),
      byteCount > 0, byteCount % Arena.PageSize.huge2M.rawValue == 0
    else { throw Refusal("no multiple of 2 MiB") }
    guard !instance.isClosed, instance.shrinking == nil else { throw Refusal("not now") }
    guard offset == instance.arenaBytes, byteCount <= window.byteCount - instance.base - offset
    else {
      throw Refusal("not behind what it has")
    }
    let range = instance.base + offset..<instance.base + offset + byteCount
    guard !instances.values.contains(where: { $0 !== instance && $0.overlaps(range) }) else {
      throw Refusal("its part of the window is taken")
    }
    do throws(MemoryError) {
      try instance.map(descriptor, byteCount: byteCount, in: window)
    } catch {
      throw Refusal(error.description)
    }
    Glibc.close(descriptor)
    post("extended id=\(instance.id)") {
      $1.resize = (instance.index, UInt64(instance.arenaBytes))
    }
  }

  private func shrink(_ instance: AttachedInstance, _ message: ControlMessage) throws(Refusal) {
    guard let byteCount: Int = message.number("bytes"), instance.canShrink(to: byteCount) else {
      throw Refusal("not where an extent ends")
    }
    guard instance.shrinking == nil else { throw Refusal("not now") }
    instance.shrinking = (byteCount, mailboxes.map { $0.settled(instance.index) })
    post(nil) { $1.resize = (instance.index, UInt64(byteCount)) }
  }

  // MARK: Who gets what

  private func makeTable() throws(ClaimConflict) -> DeliveryTableBox {
    let attached = instances.values.filter { !$0.isLeaving }.reduce(0) { $0 | bit($1.index) }
    return DeliveryTableBox(
      try DeliveryTable(station: plan.station, claims: claims, attached: attached))
  }

  /// A table of claims that stand beside each other already.
  private func tableOfNow() -> DeliveryTableBox {
    do throws(ClaimConflict) {
      return try makeTable()
    } catch {
      preconditionFailure("\(error)")
    }
  }
}

/// Keeps a table until the last queue thread has another.
final class DeliveryTableBox {
  private let table: DeliveryTable
  var rules: DeliveryRules { table.rules }

  init(_ table: consuming DeliveryTable) { self.table = table }

  /// Of an interface without instances.
  convenience init(station: UInt64) {
    do throws(ClaimConflict) {
      self.init(try DeliveryTable(station: station, claims: [], attached: 0))
    } catch {
      preconditionFailure("\(error)")
    }
  }
}
