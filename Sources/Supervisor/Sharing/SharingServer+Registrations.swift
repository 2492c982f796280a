import Channel
import Commands
import Handles
import PCI

/// Applications' own memory that instances send from. The device can read it before the driver host knows of it, and the
/// host knows of it before the instance; it goes in the opposite order, also where its handle ends. Nothing here waits.
extension SharingServer {
  /// The broker's turn. What it has ended is taken from the device.
  func serveHandles(at now: UInt64) {
    guard let handles else { return }
    handles.serve(now: now &* 1_000_000)
    let ended = handles.takeEndedRegistrations()
    if ended.isEmpty { return }
    for case let instance? in instances {
      for extent in instance.registrations where ended.contains(extent.number) {
        revoke(extent, of: instance)
      }
    }
  }

  /// When the broker's next turn is due without an event, in milliseconds.
  var handleDeadline: UInt64? { handles?.nextExpiry.map { ($0 + 999_999) / 1_000_000 } }

  private func revoke(_ extent: RegisteredExtent, of instance: AttachedInstance) {
    count("registrations_revoked")
    extent.isRevoked = true
    instance.connection?.say("revoked position=\(extent.offset) bytes=\(extent.byteCount)")
    if instance.isLeaving { return }
    wake(instance)
    if extent.stage == .registered { withdraw(extent, of: instance) }
  }

  // MARK: Commands

  func begin(_ command: InstanceCommandService.RegistrationCommand, at now: UInt64) {
    guard let instance = instance(command.caller.instance), instance.state == .running else {
      commands.complete(command.token, .refused(.failed))
      return
    }
    let handle = HandleID(high: command.handle.high, low: command.handle.low)
    let refusal =
      command.isRegistration
      ? register(handle, for: instance, command.token, at: now)
      : unregister(handle, of: instance, command.token)
    if let refusal {
      count("refused_registrations")
      commands.complete(command.token, .refused(refusal))
    }
  }

  /// - Returns: why not; nil where the driver host has been asked.
  private func register(
    _ handle: HandleID, for instance: AttachedInstance, _ token: CommandToken, at now: UInt64
  ) -> CommandStatus? {
    guard let handles else { return .unsupported }
    guard let peer = instance.connection?.handlePeer else { return .denied }
    if instance.registrations.contains(where: { $0.handle == handle }) { return .conflict }
    let record = instance.record
    let extent: RegisteredExtent
    do throws(HandleRefusal) {
      let memory = try handles.register(
        RegistrationRequest(id: handle, isForReceive: false), by: peer, now: now &* 1_000_000)
      let number = memory.number
      guard let offset = instance.placeForRegistration(memory.range.count) else {
        handles.endRegistration(number)
        return .exhausted
      }
      do {
        extent = try RegisteredExtent(memory, handle: handle, offset: offset)
        try path.map(extent.memory, iova: iova(record, offset), id: record.id)
      } catch {
        report("instance \(record.id): the device cannot have an application's memory: \(error)")
        handles.endRegistration(number)
        return .failed
      }
      tellOfRegistration(extent, of: instance)
    } catch {
      return error.status
    }
    extent.token = token
    instance.registrations.append(extent)
    return nil
  }

  func tellOfRegistration(_ extent: RegisteredExtent, of instance: AttachedInstance) {
    path.tell(
      "register id=\(instance.record.id) offset=\(extent.offset) bytes=\(extent.byteCount) from=\(extent.start)",
      [extent.descriptor])
  }

  private func unregister(
    _ handle: HandleID, of instance: AttachedInstance, _ token: CommandToken
  ) -> CommandStatus? {
    guard let extent = instance.registrations.first(where: { $0.handle == handle }) else {
      return .notFound
    }
    guard extent.stage == .registered else { return .busy }
    extent.token = token
    withdraw(extent, of: instance)
    return nil
  }

  // MARK: What the driver host says

  /// - Returns: whether it was about registered memory, and about nothing else.
  func noteRegistration(
    _ message: ControlMessage, of instance: AttachedInstance
  ) -> Bool {
    let what = message.word == "refused" ? message["what"] : message.word
    switch what {
    case "registered", "register", "unregistered", "unregister":
      guard let offset: Int = message.number("offset"),
        let extent = instance.registrations.first(where: { $0.offset == offset })
      else { return true }
      if instance.isLeaving { return true }
      switch (what, extent.stage) {
      case ("registered", .registering): take(extent, of: instance)
      case ("register", .registering):
        report("the driver host refuses an application's memory: \(message["reason"] ?? "?")")
        refuse(extent)
        unmap(extent, of: instance)
      case ("unregistered", .unregistering): unmap(extent, of: instance)
      default: break
      }
      return true
    case "unmapped":
      // All that is missing is counted together.
      if let extent = registration(message, of: instance), !instance.isLeaving {
        forget(extent, of: instance)
      }
      return false
    default: return false
    }
  }

  private func registration(
    _ message: ControlMessage, of instance: AttachedInstance
  ) -> RegisteredExtent? {
    guard let place: UInt64 = message.number("iova") else { return nil }
    return instance.registrations.first { iova(instance.record, $0.offset) == place }
  }

  /// The host has it: now the instance may.
  private func take(_ extent: RegisteredExtent, of instance: AttachedInstance) {
    extent.stage = .registered
    count("registrations_made")
    if extent.isRevoked || !extent.isMapped {
      refuse(extent)
      return withdraw(extent, of: instance)
    }
    let token = extent.token
    extent.token = nil
    let answer = MemoryRegistration(
      position: UInt64(extent.offset), byteCount: UInt64(extent.byteCount))
    // Where the credential is no longer good, nobody would ever give it back.
    if let token, commands.complete(token, .done(answer.values)) != .delivered {
      withdraw(extent, of: instance)
    }
  }

  /// It is never the instance's to use.
  private func refuse(_ extent: RegisteredExtent) {
    guard let token = extent.token else { return }
    extent.token = nil
    commands.complete(token, .refused(extent.isRevoked ? .notFound : .failed))
  }

  // MARK: Giving back

  private func withdraw(_ extent: RegisteredExtent, of instance: AttachedInstance) {
    extent.stage = .unregistering
    path.tell("unregister id=\(instance.record.id) offset=\(extent.offset)", [])
  }

  /// Nothing of it is with the device: its mapping can go.
  func unmap(_ extent: RegisteredExtent, of instance: AttachedInstance) {
    extent.stage = .unmapping
    do throws(PCIError) {
      if !extent.isMapped {
        forget(extent, of: instance)
      } else if try unmapFromDevice(extent, of: instance) {
        forget(extent, of: instance)
      }
    } catch {
      report("instance \(instance.record.id): registered memory stays with the device: \(error)")
    }
  }

  /// - Returns: false where the driver host does it and will say so.
  func unmapFromDevice(
    _ extent: RegisteredExtent, of instance: AttachedInstance
  ) throws(PCIError) -> Bool {
    let isDone = try path.unmap(
      iova: iova(instance.record, extent.offset), byteCount: extent.byteCount,
      id: instance.record.id)
    extent.isMapped = false
    if !isDone { instance.missingUnmaps += 1 }
    return isDone
  }

  /// Everybody has let go: it is the application's alone.
  private func forget(_ extent: RegisteredExtent, of instance: AttachedInstance) {
    instance.registrations.removeAll { $0 === extent }
    endRegistration(extent)
    if let token = extent.token { commands.complete(token, .done) }
  }

  func endRegistration(_ extent: RegisteredExtent) {
    handles?.endRegistration(extent.number)
    count("registrations_ended")
  }
}

extension AttachedInstance {
  /// The first gap that is large enough.
  /// - Returns: bytes from the arena's start.
  func placeForRegistration(_ byteCount: Int) -> Int? {
    let granule = WindowPlan.granule
    guard byteCount > 0, byteCount <= record.registeredBytes else { return nil }
    let size = (byteCount + granule - 1) / granule * granule
    var start = record.registeredAt
    for taken in registrations.map(\.place).sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if size <= taken.lowerBound - start { return start }
      start = taken.upperBound
    }
    return size <= record.registeredAt + record.registeredBytes - start ? start : nil
  }
}

extension HandleRefusal {
  /// As a command's completion says it.
  var status: CommandStatus {
    switch self {
    case .unknownHandle, .wrongReceiver, .expired, .revoked, .usedUp: .notFound
    case .notSealed, .unaligned, .noRight, .notMemory, .empty, .outOfRange: .denied
    case .tooMany: .exhausted
    default: .failed
    }
  }
}
