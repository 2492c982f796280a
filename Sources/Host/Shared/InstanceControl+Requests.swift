import CLinux
import Channel
import Glibc
import Memory
import Steering

/// What the supervisor asks for: each request is checked, then done or refused.
extension InstanceControl {
  /// Claims of one instance.
  private static let maximumClaims = 1024

  /// Why something is not done.
  struct Refusal: Error {
    let reason: String
    init(_ reason: String) { self.reason = reason }
  }

  func close(_ descriptors: [Int32]) {
    for descriptor in descriptors { Glibc.close(descriptor) }
  }

  func refuse(_ message: ControlMessage, _ reason: String, _ descriptors: [Int32]) {
    close(descriptors)
    let text = reason.replacing(" ", with: "_")
    let place = ["offset", "generation", "place"].compactMap { name in
      message[name].map { " \(name)=\($0)" }
    }.joined()
    supervisor.say(
      "refused id=\(message["id"] ?? "?") what=\(message.word.isEmpty ? "?" : message.word)\(place) reason=\(text)"
    )
  }

  /// - Throws: where it is refused; the descriptors are the caller's then.
  func begin(_ message: ControlMessage, _ descriptors: [Int32]) throws(Refusal) {
    if message.word == "rules" {
      try setRules(message, descriptors)
      return
    }
    if message.word == "stage" {
      try setStage(message, descriptors)
      return
    }
    if message.word == "stage-end" {
      guard descriptors.isEmpty else { throw Refusal("wrong number of descriptors") }
      try endStage(message)
      return
    }
    guard let id: UInt32 = message.number("id") else { throw Refusal("no id") }
    if message.word == "attach" {
      try attach(id, message, descriptors)
      return
    }
    guard let instance = instances[Int(id & 0xff)], instance.id == id, !instance.isLeaving else {
      throw Refusal("no such instance")
    }
    guard descriptors.count == (["extent", "register"].contains(message.word) ? 1 : 0) else {
      throw Refusal("wrong number of descriptors")
    }
    switch message.word {
    case "claim": try claim(instance, message)
    case "unclaim": try unclaim(instance, message)
    case "resume": try resume(instance)
    case "detach": detach(instance)
    case "extent": try extend(instance, message, descriptors[0])
    case "shrink": try shrink(instance, message)
    case "register": try register(instance, message, descriptors[0])
    case "unregister": try unregister(instance, message)
    default: throw Refusal("not understood")
    }
  }

  private func attach(
    _ id: UInt32, _ message: ControlMessage, _ descriptors: [Int32]
  ) throws(Refusal) {
    let order = try AttachOrder(id, message, plan, windowBytes: window.byteCount)
    guard descriptors.count == 4 + mailboxes.count else {
      throw Refusal("wrong number of descriptors")
    }
    guard instances[order.index] == nil else { throw Refusal("its place is taken") }
    let arena = order.base..<order.base + order.arenaBytes
    let registered =
      order.base + order.registered.lowerBound..<order.base
      + order.registered.upperBound
    guard !instances.values.contains(where: { $0.overlaps(arena) || $0.overlaps(registered) })
    else {
      throw Refusal("its part of the window is taken")
    }
    let instance = try makeInstance(order, descriptors)
    instances[order.index] = instance
    statistics.show(true, instance: order.index, isResumed: order.isResumed)
    instance.isHeld = order.isResumed
    if !order.isResumed { install(instance) }
  }

  private func install(_ instance: AttachedInstance) {
    instance.isHeld = false
    post("attached id=\(instance.id)", newTable: tableOfNow()) {
      $1.install = instance.ports[$0]
    }
  }

  /// All memory is here that an instance had with the host before.
  private func resume(_ instance: AttachedInstance) throws(Refusal) {
    guard instance.isHeld else { throw Refusal("not held") }
    install(instance)
  }

  /// Maps all of an instance's memory and makes its ports. Of the descriptors only the doorbells stay open.
  private func makeInstance(
    _ order: AttachOrder, _ descriptors: [Int32]
  ) throws(Refusal) -> AttachedInstance {
    let channelCopy = try copy(descriptors[1])
    let channel: ChannelMemory
    do throws(ChannelError) {
      channel = try ChannelMemory(
        adopting: channelCopy, layout: order.layout, keepsDescriptor: false)
    } catch {
      throw Refusal(error.description)
    }
    let recordCopy = try copy(descriptors[2])
    let record: Arena
    do throws(MemoryError) {
      record = try Arena(
        adopting: recordCopy,
        byteCount: HostRecord.instanceBytes(
          queues: mailboxes.count, receiveBytes: order.receiveBytes), keepsDescriptor: false)
    } catch {
      throw Refusal(error.description)
    }
    let instance = AttachedInstance(
      id: order.id, name: order.name, base: order.base, registered: order.registered,
      channel: channel,
      record: record)
    guard instance.takeDoorbells(descriptors.dropFirst(3), wakes) else {
      throw Refusal("doorbells that cannot be")
    }
    do throws(MemoryError) {
      try instance.map(descriptors[0], byteCount: order.arenaBytes, in: window)
    } catch {
      throw Refusal(error.description)
    }
    do throws(RecordError) {
      for queue in mailboxes.indices { instance.ports.append(try port(queue, order, instance)) }
    } catch {
      try? instance.unmap(to: 0, in: window)
      throw Refusal(error.description)
    }
    close(descriptors)
    return instance
  }

  /// What fails closes the descriptor that it was given: the request's stay its own until all has gone well.
  func copy(_ descriptor: Int32) throws(Refusal) -> Int32 {
    let copy = linux_fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
    guard copy >= 0 else { throw Refusal("no descriptor is free") }
    return copy
  }

  /// An instance on one queue, which goes on where the host before ended, if there was one.
  private func port(
    _ queue: Int, _ order: AttachOrder, _ instance: AttachedInstance
  ) throws(RecordError) -> UnsafeMutablePointer<InstancePort> {
    let record = instance.record(
      queue, segments: plan.share(of: order.receiveBytes) / Descriptor.unit)
    var ledger = plan.instanceLedger(
      queue: queue, receiveBytes: order.receiveBytes, record: record)
    var end = HostEnd(
      instance.channel, queue: queue, instanceDoorbell: instance.doorbell,
      from: try record.reconcile(&ledger))
    guard !order.isResumed || end.takeOver() else { throw .badPlace }
    let port = UnsafeMutablePointer<InstancePort>.allocate(capacity: 1)
    port.initialize(
      to: InstancePort(
        index: order.index, id: order.id, channel: end, end: instance.channel.end, ledger: ledger,
        arena: window.address + order.base, base: UInt64(order.base),
        transmitPart: UInt64(order.receiveBytes)..<UInt64(order.arenaBytes),
        registeredPart: UInt64(order.registered.lowerBound)..<UInt64(order.registered.upperBound),
        weight: order.weight, segmentLimit: order.segmentLimit,
        time: TimeBudget(percent: order.timePercent), doorbell: instance.hostDoorbells[queue],
        record: record))
    return port
  }

  private func claim(_ instance: AttachedInstance, _ message: ControlMessage) throws(Refusal) {
    let claim = try Self.claim(message)
    guard instance.claims.count < Self.maximumClaims else { throw Refusal("too many claims") }
    claims.append((instance.index, claim))
    let new: ForwardingTableBox
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
    // The queue threads let go of what they have.
    if instance.isHeld { return letGo(instance) }
    instance.removals = []
    instance.settledBefore = nil
    claims.removeAll { $0.instance == instance.index }
    post(nil, newTable: tableOfNow()) { $1.close = instance.index }
  }

  /// No queue thread has it.
  private func letGo(_ instance: AttachedInstance) {
    claims.removeAll { $0.instance == instance.index }
    forget(instance)
    supervisor.say("detached id=\(instance.id) reason=\(EndReason.detached.name)")
  }

  private func extend(
    _ instance: AttachedInstance, _ message: ControlMessage, _ descriptor: Int32
  ) throws(Refusal) {
    guard let offset: Int = message.number("offset"), let byteCount: Int = message.number("bytes"),
      byteCount > 0, byteCount % Arena.PageSize.huge2M.rawValue == 0
    else { throw Refusal("no multiple of 2 MiB") }
    guard !instance.isClosed, !instance.removals.contains(where: \.isShrink) else {
      throw Refusal("not now")
    }
    let limit =
      instance.registered.isEmpty
      ? window.byteCount - instance.base : instance.registered.lowerBound
    guard offset == instance.arenaBytes, byteCount <= limit - offset else {
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
    let end = UInt64(instance.arenaBytes)
    if instance.isHeld {
      for port in instance.ports {
        port.pointee.transmitPart = port.pointee.transmitPart.lowerBound..<end
      }
      return supervisor.say("extended id=\(instance.id)")
    }
    post("extended id=\(instance.id)") { $1.resize = (instance.index, end) }
  }

  private func shrink(_ instance: AttachedInstance, _ message: ControlMessage) throws(Refusal) {
    guard let byteCount: Int = message.number("bytes"), instance.canShrink(to: byteCount) else {
      throw Refusal("not where an extent ends")
    }
    guard !instance.removals.contains(where: \.isShrink) else { throw Refusal("not now") }
    instance.removals.append(.shrink(to: byteCount))
    beginRemoval(instance)
  }

  private func register(
    _ instance: AttachedInstance, _ message: ControlMessage, _ descriptor: Int32
  ) throws(Refusal) {
    guard let offset: Int = message.number("offset"), let start: Int = message.number("from"),
      let byteCount: Int = message.number("bytes"),
      instance.canRegister(at: offset, byteCount: byteCount)
    else { throw Refusal("not where it can be registered") }
    guard !instance.isClosed else { throw Refusal("not now") }
    do throws(MemoryError) {
      try instance.register(
        descriptor, from: start, at: offset, byteCount: byteCount, in: window)
    } catch {
      throw Refusal(error.description)
    }
    Glibc.close(descriptor)
    let range = UInt64(offset)..<UInt64(offset + byteCount)
    if instance.isHeld {
      for port in instance.ports { port.pointee.registered.set(range, isRegistered: true) }
      return supervisor.say("registered id=\(instance.id) offset=\(offset)")
    }
    post("registered id=\(instance.id) offset=\(offset)") {
      $1.register = (instance.index, range, true)
    }
  }

  private func unregister(
    _ instance: AttachedInstance, _ message: ControlMessage
  ) throws(Refusal) {
    guard let offset: Int = message.number("offset"), instance.registrations[offset] != nil,
      !instance.removals.contains(.unregister(offset: offset))
    else { throw Refusal("not registered") }
    instance.removals.append(.unregister(offset: offset))
    beginRemoval(instance)
  }

  /// Tells the queue threads of the first removal, where none is under way. ``noteSettled()`` ends it.
  func beginRemoval(_ instance: AttachedInstance) {
    guard instance.settledBefore == nil, let removal = instance.removals.first else { return }
    instance.settledBefore = mailboxes.map { $0.settled(instance.index) }
    post(nil) {
      switch removal {
      case .shrink(let byteCount): $1.resize = (instance.index, UInt64(byteCount))
      case .unregister(let offset):
        let byteCount = instance.registrations[offset]?.byteCount ?? 0
        $1.register = (instance.index, UInt64(offset)..<UInt64(offset + byteCount), false)
      }
    }
  }
}
