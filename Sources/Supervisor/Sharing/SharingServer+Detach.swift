import Channel
import Glibc
import PCI

/// From an instance that runs to memory that is nobody's: the driver host lets go first, then the device, then we.
extension SharingServer {
  /// What the driver host has said of an instance.
  /// - Returns: false where it is about something else.
  func hear(host message: ControlMessage, at now: UInt64) -> Bool {
    if noteRules(message) || noteFilter(message) { return true }
    if stages?.hear(host: message, at: now) ?? false { return true }
    guard let id: UInt32 = message.number("id") else { return false }
    guard let instance = instance(id) else {
      count("host_stale_messages")
      return true
    }
    // What a new host says of claims that the one before had comes first.
    if instance.missingAnswers == 0, noteClaim(message, of: instance) { return true }
    if message.word == "refused", message["what"] == "map",
      noteMapRefused(message, of: instance)
    {
      return true
    }
    if noteRegistration(message, of: instance) { return true }
    if noteMove(message, of: instance, at: now) { return true }
    switch message.word {
    case "attached", "claimed":
      instance.missingAnswers -= 1
      if instance.state == .announced, instance.missingAnswers == 0 { welcome(instance, at: now) }
    case "refused":
      let what = "\(message["what"] ?? "?"): \(message["reason"] ?? "no reason")"
      switch message["what"] {
      // It never had it.
      case "detach": unmap(instance, at: now)
      case "unmap": noteUnmappable(instance, what)
      default: break
      }
      if instance.isLeaving { return true }
      if instance.state != .announced,
        ["attach", "claim"].contains(message["what"]) && instance.missingAnswers > 0
          || message["what"] == "map" && !instance.isMapped
      {
        // A host before this one had it: what that has left of it is of no use.
        count("instances_not_resumed")
        close(instance, "the driver host refuses \(what)", at: now)
      } else if instance.state == .announced, let connection = instance.connection {
        refuse(connection, "host: the driver host refuses \(what)")
        leave(instance, "refused by the driver host", at: now)
      } else {
        report("the driver host refuses instance \(id) \(what)")
      }
    case "closed":
      count("instances_closed_by_host")
      close(instance, message["reason"] ?? "no reason", at: now)
    case "detached":
      if !instance.isLeaving { leave(instance, "let go of by the driver host", at: now) }
      unmap(instance, at: now)
    case "mapped": break
    case "unmapped":
      instance.missingUnmaps = max(0, instance.missingUnmaps - 1)
      // Also where that took longer than it may.
      if instance.state != .unmapping && instance.state != .stuck {
        noteUnmapped(instance, at: now)
      } else if instance.missingUnmaps == 0 {
        forget(instance, at: now)
      }
    default: return false
    }
    return true
  }

  func instance(_ id: UInt32) -> AttachedInstance? {
    guard let instance = instances[Int(id & 0xff) % Self.maximumInstances],
      instance.record.id == id
    else { return nil }
    return instance
  }

  /// Tells an instance's process why, and ends it.
  func close(_ instance: AttachedInstance, _ reason: String, at now: UInt64) {
    if let connection = instance.connection {
      connection.sayLast("closed reason=\(reason)")
      drop(connection)
    }
    leave(instance, reason, at: now)
  }

  /// Begins to take everything back.
  func leave(_ instance: AttachedInstance, _ reason: String, at now: UInt64) {
    if instance.isLeaving { return }
    report("instance \(instance.record.id) (\(instance.record.name)) ends: \(reason)")
    instance.reason = reason
    instance.state = .leaving
    abandonMove(instance)
    commands.close(instance.record.id)
    instance.deadline = now + Self.hostLimit
    // For a process that goes on in spite of it all.
    instance.memory.channel.askToEnd()
    wake(instance)
    path.tell("detach id=\(instance.record.id)", [])
  }

  func unmap(_ instance: AttachedInstance, at now: UInt64) {
    guard instance.state == .leaving || instance.state == .stuck else { return }
    instance.state = .unmapping
    instance.deadline = now + Self.hostLimit
    do throws(PCIError) {
      for extent in instance.extents where extent.isMapped { try unmap(extent, of: instance) }
      for extent in instance.registrations where extent.isMapped {
        _ = try unmapFromDevice(extent, of: instance)
      }
      if instance.isMapped {
        let isDone = try path.unmap(
          iova: iova(instance.record, 0), byteCount: instance.memory.arena.byteCount,
          id: instance.record.id)
        instance.isMapped = false
        if !isDone { instance.missingUnmaps += 1 }
      }
    } catch {
      return noteUnmappable(instance, "\(error)")
    }
    if instance.missingUnmaps == 0 { forget(instance, at: now) }
  }

  private func noteUnmappable(_ instance: AttachedInstance, _ reason: String) {
    report("instance \(instance.record.id): its memory cannot be taken from the device: \(reason)")
    instance.state = .stuck
    instance.deadline = nil
  }

  /// Has it look at its channel and its socket.
  func wake(_ instance: AttachedInstance) {
    instance.memory.channel.announceNews()
    instance.memory.doorbells.wakeInstance()
  }

  /// All have let go: memory, place and slot are free.
  func forget(_ instance: AttachedInstance, at now: UInt64) {
    let record = instance.record
    if let connection = instance.connection { drop(connection) }
    window.release(record.slot)
    instances[record.index] = nil
    count("instances_detached")
    for extent in instance.extents { discard(extent) }
    for extent in instance.registrations { endRegistration(extent) }
    unusedPages += instance.memory.addedPages
    serveWanting(at: now)
  }

  func missedDeadline(_ instance: AttachedInstance, at now: UInt64) {
    switch instance.state {
    case .announced:
      if let connection = instance.connection {
        refuse(connection, "host: the driver host has not answered")
      }
      leave(instance, "the driver host has not taken it", at: now)
    case .welcomed:
      count("refused_timeout")
      close(instance, "timeout: it was not ready in time", at: now)
    case .leaving, .unmapping:
      count("detach_timeouts")
      report(
        "the driver host has not let go of instance \(instance.record.id) in \(Self.hostLimit) ms: its memory stays as it is until it does or ends"
      )
      instance.state = .stuck
      instance.deadline = nil
    case .running, .stuck: instance.deadline = nil
    }
  }

  /// What the device can still read of instances' memory.
  var mappedMemory: [(iova: UInt64, byteCount: Int)] {
    instances.compactMap(\.self).flatMap { instance in
      (instance.isMapped
        ? [(iova: iova(instance.record, 0), byteCount: instance.memory.arena.byteCount)] : [])
        + instance.extents.filter(\.isMapped).map {
          (iova: iova(instance.record, $0.offset), byteCount: $0.byteCount)
        }
        + instance.registrations.filter(\.isMapped).map {
          (iova: iova(instance.record, $0.offset), byteCount: $0.byteCount)
        }
    }
  }
}
