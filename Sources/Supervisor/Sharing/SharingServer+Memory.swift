import Channel
import Commands
import Glibc
import Memory
import PCI

/// Memory that comes and goes while an instance runs. The device can read an extent before the driver host knows of it,
/// and the host knows of it before the instance; it goes in the opposite order. Nothing here waits.
extension SharingServer {
  /// The largest extent: what is populated and mapped in one go.
  static let largestExtent = 32 << 20

  /// Gives an instance more.
  /// - Parameter byteCount: rounded up to 2 MiB.
  func grow(
    _ instance: AttachedInstance, by byteCount: UInt64, asker: MemoryAsker, at now: UInt64
  ) {
    guard instance.state == .running else { return refuse(asker, .notRunning) }
    guard instance.move == nil, instance.answersDue == 0 else { return refuse(asker, .busy) }
    let record = instance.record
    let left = UInt64(record.maximumBytes - record.arenaBytes)
    let granule = UInt64(WindowPlan.granule)
    guard byteCount > 0, byteCount <= left else { return refuse(asker, .maximum) }
    if case .command = asker, now < pressureEnds { return refuse(asker, .pressure) }
    let rounded = (byteCount + granule - 1) / granule * granule
    instance.move = MemoryMove(
      target: record.arenaBytes + Int(min(rounded, left / granule * granule)), stage: .waiting,
      asker: asker)
    goOn(instance, at: now)
  }

  /// Takes memory back from an instance, in whole extents and never below its guarantee.
  /// - Parameter target: bytes that it should go down to.
  func shrink(
    _ instance: AttachedInstance, to target: Int, asker: MemoryAsker, at now: UInt64
  ) {
    guard instance.state == .running else { return refuse(asker, .notRunning) }
    guard instance.move == nil, instance.answersDue == 0 else { return refuse(asker, .busy) }
    let end = instance.extentEnd(from: max(target, instance.record.guaranteedBytes))
    if end >= instance.record.arenaBytes { return answer(asker, instance) }
    instance.move = MemoryMove(
      target: end, stage: .asking, asker: asker, deadline: now + policy.memory.letGoMilliseconds)
    ask(instance, for: end)
  }

  private func ask(_ instance: AttachedInstance, for byteCount: Int) {
    if instance.connection?.say("shrink bytes=\(byteCount)") == true { instance.answersDue += 1 }
    wake(instance)
  }

  /// The next step of growth.
  func goOn(_ instance: AttachedInstance, at now: UInt64) {
    guard let move = instance.move, move.isGrowth else { return }
    let record = instance.record
    if record.arenaBytes >= move.target { return finish(instance) }
    let byteCount = min(Self.largestExtent, move.target - record.arenaBytes)
    if MemoryBalance.free(budget: policy.memory.budget, shares(at: now)) < byteCount {
      return makeRoom(for: instance, at: now)
    }
    let extent: MemoryExtent
    do throws(SupervisorError) {
      extent = try MemoryExtent(
        offset: record.arenaBytes, byteCount: byteCount, hasHugePages: hasHugePages,
        keeper: keeper)
    } catch {
      report("instance \(record.id): no memory: \(error)")
      return finish(instance, .failed)
    }
    do throws(PCIError) {
      try path.map(extent.arena, iova: iova(record, extent.offset), id: record.id)
    } catch {
      report("instance \(record.id): the device cannot have its memory: \(error)")
      unusedPages += extent.addedPages
      return finish(instance, .failed)
    }
    instance.move?.stage = .extending(extent)
    instance.move?.deadline = now + Self.hostLimit
    tellOfExtent(extent, of: instance)
  }

  func tellOfExtent(_ extent: MemoryExtent, of instance: AttachedInstance) {
    path.tell(
      "extent id=\(instance.record.id) offset=\(extent.offset) bytes=\(extent.byteCount)",
      [extent.arena.descriptor])
  }

  func iova(_ record: InstanceRecord, _ offset: Int) -> UInt64 {
    windowIOVA + UInt64(record.slot + offset)
  }

  // MARK: What the driver host says

  /// - Returns: whether it was about memory that moves.
  func noteMove(_ message: ControlMessage, of instance: AttachedInstance, at now: UInt64) -> Bool {
    let isAboutExtent =
      message.word == "extended" || message.word == "refused" && message["what"] == "extent"
    if isAboutExtent, instance.missingExtents > 0 {
      instance.missingExtents -= 1
      if message.word == "refused" {
        close(instance, "the driver host refuses its memory", at: now)
      }
      return true
    }
    switch (message.word, instance.move?.stage) {
    case ("extended", .extending(let extent)): take(extent, instance, at: now)
    case ("refused", .extending(let extent)) where message["what"] == "extent":
      instance.extents.append(extent)
      instance.move?.stage = .withdrawing(to: extent.offset)
      unmap(instance, to: extent.offset, at: now)
    case ("shrunk", .withdrawing(let end)): unmap(instance, to: end, at: now)
    case ("refused", .withdrawing) where message["what"] == "shrink":
      report("instance \(instance.record.id): the driver host keeps its memory")
      finish(instance, .failed)
    default: return false
    }
    return true
  }

  /// The host knows of an extent: now the instance may.
  private func take(_ extent: MemoryExtent, _ instance: AttachedInstance, at now: UInt64) {
    instance.extents.append(extent)
    let isKnown =
      extent.isMapped
      && instance.connection?.say(
        "extent offset=\(extent.offset) bytes=\(extent.byteCount)", [extent.arena.descriptor])
        == true
    if !isKnown { return withdraw(instance, to: extent.offset, at: now) }
    instance.record.arenaBytes = extent.end
    count("memory_extents_given")
    wake(instance)
    instance.move?.stage = .waiting
    instance.move?.deadline = nil
    if case .administrator(let connection) = instance.move?.asker {
      connection.say("moved id=\(instance.record.id) now=\(extent.end)")
    }
    goOn(instance, at: now)
  }

  // MARK: What the instance says

  /// It has let go of what lies behind its first `bytes`. Each time that it was asked it answers once.
  /// - Returns: false where that cannot be.
  func noteLetGo(_ message: ControlMessage, of instance: AttachedInstance, at now: UInt64) -> Bool {
    guard instance.answersDue > 0, let end: Int = message.number("bytes") else { return false }
    instance.answersDue -= 1
    let record = instance.record
    // A second answer to the same, or the late one of an instance of which nothing was expected any more.
    if let move = instance.move, !move.isAsking { return end <= record.arenaBytes }
    let lowest = instance.move?.target ?? record.guaranteedBytes
    guard end >= lowest, end <= record.arenaBytes, instance.extentEnd(from: end) == end else {
      return false
    }
    if end < record.arenaBytes {
      if instance.move == nil {
        instance.move = MemoryMove(target: end, stage: .asking, asker: .nobody)
      }
      withdraw(instance, to: end, at: now)
    } else if instance.move != nil {
      finish(instance, .inUse)
      serveWanting(at: now)
    }
    return true
  }

  // MARK: Giving back

  private func withdraw(_ instance: AttachedInstance, to end: Int, at now: UInt64) {
    instance.move?.stage = .withdrawing(to: end)
    instance.move?.deadline = now + Self.hostLimit
    path.tell("shrink id=\(instance.record.id) bytes=\(end)", [])
  }

  /// Nothing of it is with the device: its mapping can go.
  func unmap(_ instance: AttachedInstance, to end: Int, at now: UInt64) {
    instance.move?.stage = .unmapping(to: end)
    for extent in instance.extents.reversed() where extent.offset >= end && extent.isMapped {
      do throws(PCIError) {
        try unmap(extent, of: instance)
      } catch {
        report("instance \(instance.record.id): its memory stays with the device: \(error)")
        return finish(instance, .failed)
      }
    }
    noteUnmapped(instance, at: now)
  }

  func unmap(_ extent: MemoryExtent, of instance: AttachedInstance) throws(PCIError) {
    let isDone = try path.unmap(
      iova: iova(instance.record, extent.offset), byteCount: extent.byteCount,
      id: instance.record.id)
    extent.isMapped = false
    if !isDone { instance.missingUnmaps += 1 }
  }

  /// The device has let go too, where nothing is missing any more: the pages are free.
  func noteUnmapped(_ instance: AttachedInstance, at now: UInt64) {
    guard case .unmapping(let end)? = instance.move?.stage, instance.missingUnmaps == 0 else {
      return
    }
    while let extent = instance.extents.last, extent.offset >= end {
      discard(extent)
      instance.extents.removeLast()
    }
    let isWanted = end < instance.record.arenaBytes
    instance.record.arenaBytes = end
    finish(instance, isWanted ? nil : .failed)
    serveWanting(at: now)
  }

  func discard(_ extent: MemoryExtent) {
    if !extent.discard() { count("memory_pages_kept") }
    count("memory_extents_taken_back")
    unusedPages += extent.addedPages
  }

  // MARK: The end of a change

  /// - Parameter refusal: why it did not come to it; nil where it did.
  func finish(_ instance: AttachedInstance, _ refusal: MemoryRefusal? = nil) {
    guard let move = instance.move else { return }
    instance.move = nil
    if let refusal { refuse(move.asker, refusal) } else { answer(move.asker, instance) }
  }

  private func answer(_ asker: MemoryAsker, _ instance: AttachedInstance) {
    let bytes = instance.record.arenaBytes
    switch asker {
    case .nobody: break
    case .command(let token):
      commands.complete(token, .done([UInt64(bytes), 0, 0, 0, 0, 0]))
    case .administrator(let connection):
      connection.say("moved id=\(instance.record.id) now=\(bytes)")
      connection.say("end")
    }
  }

  private func refuse(_ asker: MemoryAsker, _ refusal: MemoryRefusal) {
    switch asker {
    case .nobody: break
    case .command(let token): commands.complete(token, .refused(refusal.status))
    case .administrator(let connection):
      connection.say(Refusal(reason: "memory: \(refusal.rawValue)").text)
    }
  }

  /// A stage has taken too long.
  func missedMove(_ instance: AttachedInstance, at now: UInt64) {
    guard let move = instance.move else { return }
    let id = instance.record.id
    switch move.stage {
    case .waiting: finish(instance, .exhausted)
    case .asking, .lastCall:
      if isMemoryWanted {
        count("instances_closed_for_memory")
        return close(instance, "memory: it has not let go of it in time", at: now)
      }
      if case .asking = move.stage {
        instance.move?.stage = .lastCall
        instance.move?.deadline = now + policy.memory.letGoMilliseconds
        return ask(instance, for: instance.record.arenaBytes)
      }
      count("memory_not_let_go")
      report("instance \(id) has not let go of memory; nobody needs it now, so it stays")
      finish(instance, .inUse)
    case .extending, .withdrawing, .unmapping:
      count("memory_move_timeouts")
      report("the driver host has not answered about memory of instance \(id)")
      instance.move?.deadline = nil
    }
  }

  /// The instance ends: what has been begun for it goes with it.
  func abandonMove(_ instance: AttachedInstance) {
    if case .extending(let extent)? = instance.move?.stage { instance.extents.append(extent) }
    finish(instance, .notRunning)
  }
}
