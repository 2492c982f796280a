import Channel
import Glibc

/// Who gives memory to whom: the decisions are ``MemoryBalance``'s.
extension SharingServer {
  /// How often it is looked whether an instance has received or sent anything, in milliseconds.
  private static let trafficInterval: UInt64 = 250
  /// How long after a word of the kernel nobody grows by his own wish.
  private static let pressurePause: UInt64 = 2000

  /// What everybody has that holds memory, also those on their way out.
  func shares(at now: UInt64) -> [MemoryShare] {
    instances.compactMap { instance in
      guard let instance else { return nil }
      var bytes = instance.record.arenaBytes
      if case .extending(let extent)? = instance.move?.stage { bytes += extent.byteCount }
      let isRunning = instance.state == .running
      return MemoryShare(
        id: instance.record.id,
        guaranteed: isRunning ? instance.record.guaranteedBytes : bytes, now: bytes,
        idle: now - min(now, instance.lastTraffic),
        isAsked: instance.move.map { !$0.isGrowth } ?? false)
    }
  }

  /// Whether somebody waits for what others have.
  var isMemoryWanted: Bool {
    instances.contains { $0?.move?.isWaiting ?? false } || waiting.contains { $0.wantsMemory }
  }

  /// Asks idle instances for what one lacks that wants to grow.
  func makeRoom(for instance: AttachedInstance, at now: UInt64) {
    guard let move = instance.move else { return }
    let shares = shares(at: now)
    let lacking =
      move.target - instance.record.arenaBytes
      - MemoryBalance.free(budget: policy.memory.budget, shares)
    guard
      let shrinks = MemoryBalance.reclaim(
        lacking, for: instance.record.id, idleAfter: policy.memory.idleMilliseconds, from: shares)
    else { return finish(instance, .exhausted) }
    if move.deadline == nil {
      // They have their time, and the host has its.
      instance.move?.deadline = now + policy.memory.letGoMilliseconds + 2 * Self.hostLimit
    }
    ask(shrinks, at: now)
  }

  /// Asks for what a new instance is to be guaranteed.
  /// - Returns: whether there will be room for it; `isFree` is set where there is now.
  func makeRoom(forGuarantee bytes: Int, isFree: inout Bool, at now: UInt64) -> Bool {
    let shares = shares(at: now)
    let free = MemoryBalance.free(budget: policy.memory.budget, shares)
    isFree = free >= bytes
    if isFree { return true }
    guard
      let shrinks = MemoryBalance.reclaim(
        bytes - free, for: nil, idleAfter: policy.memory.idleMilliseconds, isGuaranteed: true,
        from: shares)
    else { return false }
    ask(shrinks, at: now)
    return true
  }

  private func ask(_ shrinks: [MemoryBalance.Shrink], at now: UInt64) {
    for order in shrinks {
      guard let instance = instance(order.id), instance.move == nil else { continue }
      if instance.answersDue > 0 {
        // It has been asked before and has never answered.
        count("instances_closed_for_memory")
        close(instance, "memory: it has not let go of it", at: now)
      } else {
        count("memory_asked_back")
        // Only whole extents come back: enough of them.
        let target = instance.extentStart(upTo: order.target)
        shrink(instance, to: target, asker: .nobody, at: now)
      }
    }
  }

  /// Memory has come back: those that wait for it go on.
  func serveWanting(at now: UInt64) {
    for case let instance? in instances where instance.move?.isWaiting ?? false {
      goOn(instance, at: now)
    }
    retryWaiting(at: now)
  }

  /// Looks who has received or sent anything.
  func noteTraffic(at now: UInt64) {
    if now < nextTraffic { return }
    nextTraffic = now + Self.trafficInterval
    for case let instance? in instances {
      let packets = traffic(instance.record.index)
      if packets != instance.packets {
        instance.packets = packets
        instance.lastTraffic = now
      }
    }
  }

  /// The kernel says that memory is short: what is free above the guarantees goes back to it.
  func notePressure(at now: UInt64) {
    count("memory_pressure_events")
    pressureEnds = now + Self.pressurePause
    let shrinks = MemoryBalance.relief(shares(at: now))
    report(
      "memory is short: \(shrinks.count) instances are asked for what they have above their guarantee"
    )
    for order in shrinks {
      if let instance = instance(order.id), instance.move == nil, instance.answersDue == 0 {
        shrink(instance, to: order.target, asker: .nobody, at: now)
      }
    }
  }
}
