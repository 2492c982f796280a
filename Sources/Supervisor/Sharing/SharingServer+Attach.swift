import Channel
import Glibc
import Memory
import PCI
import Steering

/// From a request to an instance that runs.
extension SharingServer {
  func attach(_ message: ControlMessage, from connection: PeerConnection, at now: UInt64) {
    do throws(AttachError) {
      attach(try AttachRequest(message), from: connection, at: now)
    } catch {
      if case .version = error {
        refuse(connection, "version: \(error)")
      } else {
        refuse(connection, "request: \(error)")
      }
    }
  }

  private func attach(
    _ request: AttachRequest, from connection: PeerConnection, at now: UInt64
  ) {
    guard let rule = policy.rule(for: request.name) else {
      return refuse(connection, "name: the policy has no instance named \(request.name)")
    }
    guard (rule.users ?? policy.users).contains(connection.uid) else {
      return refuse(connection, "user: user \(connection.uid) may not attach as \(request.name)")
    }
    if let digest = rule.tokenDigest, !TokenDigest.matches(request.token, digest) {
      return refuse(connection, "token: it is not \(request.name)'s")
    }
    for claim in request.claims where !rule.allows(claim) || !policy.isFree(claim, for: rule) {
      return refuse(connection, "claim: \(request.name) may not have \(claim)")
    }
    let maximum = request.memory.map { ($0 + 1) / 2 * 2 << 20 } ?? rule.maximumBytes
    guard maximum <= rule.maximumBytes, maximum >= 4 << 20 else {
      return refuse(
        connection,
        "memory: \(request.name) may have 4 to \(rule.maximumBytes >> 20) MiB")
    }
    grant(request, rule, maximumBytes: maximum, to: connection, at: now)
  }

  /// Looks for a slot, a place and free claims; where one that leaves has them, the request waits for its end.
  private func grant(
    _ request: AttachRequest, _ rule: InstanceRule, maximumBytes: Int,
    to connection: PeerConnection, at now: UInt64
  ) {
    var mustWait = false
    let guaranteed = min(rule.guaranteedBytes, maximumBytes)
    var isFree = true
    guard makeRoom(forGuarantee: guaranteed, isFree: &isFree, at: now) else {
      return refuse(
        connection,
        "memory: the others have been guaranteed all but less than \(guaranteed >> 20) MiB")
    }
    for case let other? in instances {
      for claim in request.claims where isTaken(claim, by: other, uid: connection.uid, rule) {
        if !other.isLeaving || other.state == .stuck {
          return refuse(connection, "claim: \(claim) is another instance's")
        }
        mustWait = true
      }
    }
    let isFull = !instances.contains { $0 == nil }
    if isFull, !instances.contains(where: { $0?.isLeaving ?? false }) {
      return refuse(connection, "instances: there are \(Self.maximumInstances) already")
    }
    if mustWait || isFull || !isFree {
      connection.wantsMemory = !isFree
      // Those that are asked for memory have their time.
      if !isFree, connection.deadline != nil {
        connection.deadline = now + policy.memory.letGoMilliseconds + 2 * Self.hostLimit
      }
      connection.stage = .waiting(request)
      waiting.append(connection)
      return
    }
    guard
      let place = window.reserve(WindowPlan.rounded(maximumBytes) + rule.registeredBytes)
    else {
      return refuse(connection, "window: no room for \(maximumBytes >> 20) MiB more")
    }
    do throws(SupervisorError) {
      try admit(request, rule, place, maximumBytes, connection, at: now)
    } catch {
      window.release(place)
      report("no instance \(request.name): \(error)")
      refuse(connection, "resources: \(error)")
    }
  }

  /// Whether another instance keeps this one from a claim: it has it, or it is another user's and has the whole address.
  func isTaken(
    _ claim: Claim, by other: AttachedInstance, uid: uid_t,
    _ rule: InstanceRule
  ) -> Bool {
    other.record.claims.contains { taken in
      if claim.excludes(taken) { return true }
      guard case .ports(let address, _, _) = claim, case .address(address) = taken else {
        return false
      }
      return other.record.uid != uid && !rule.namesExactly(claim)
    }
  }

  private func admit(
    _ request: AttachRequest, _ rule: InstanceRule, _ place: Int, _ maximumBytes: Int,
    _ connection: PeerConnection, at now: UInt64
  ) throws(SupervisorError) {
    guard let layout = ChannelLayout(queues: interface.queues, slots: rule.slots),
      let slot = instances.firstIndex(where: { $0 == nil })
    else { throw .input("there is no channel of \(rule.slots) slots") }
    let guaranteed = min(rule.guaranteedBytes, maximumBytes)
    // Received packets are copied, and soon given back: a quarter is enough.
    let receiveBytes = max(1, guaranteed / 4 / WindowPlan.granule) * WindowPlan.granule
    let memory = try InstanceMemory(
      byteCount: guaranteed, receiveBytes: receiveBytes, layout: layout,
      hasHugePages: hasHugePages, keeper: keeper)
    generations[slot] = generations[slot] % 0xff_ffff + 1
    let number = UInt32(slot) | generations[slot] << 8
    let channel = try commands.open(number, uid: connection.uid, seconds: rule.credentialSeconds)
    let record = InstanceRecord(
      id: number, name: request.name, uid: connection.uid,
      pid: connection.pid, claims: Array(Set(request.claims)),
      credential: channel.credential, weight: rule.weight,
      slot: place, receiveBytes: receiveBytes, guaranteedBytes: guaranteed,
      maximumBytes: maximumBytes, registeredBytes: rule.registeredBytes, arenaBytes: guaranteed)
    do throws(PCIError) {
      try path.map(memory.arena, iova: windowIOVA + UInt64(place), id: record.id)
    } catch {
      commands.close(number)
      throw .device("\(error)")
    }
    let instance = AttachedInstance(
      record: record, memory: memory, connection: connection, deadline: now + Self.hostLimit)
    instance.commandDescriptors = channel
    instances[slot] = instance
    captures?.note(instance: number, name: request.name)
    connection.stage = .instance(slot)
    connection.deadline = nil
    announce(instance)
    tellOfClaims(of: instance)
  }

  /// Tells the driver host of an instance with its first memory. Where a host before had it, nothing of it is looked at
  /// before `resume`.
  func announce(_ instance: AttachedInstance, isResumed: Bool = false) {
    let record = instance.record
    let memory = instance.memory
    let rule = policy.rule(for: record.name)
    instance.missingAnswers = 1 + record.claims.count
    path.tell(
      "attach id=\(record.id) name=\(record.name) register-at=\(record.registeredAt) register-bytes=\(record.registeredBytes)"
        + " slot=\(record.slot) receive=\(record.receiveBytes) bytes=\(memory.arena.byteCount)"
        + " slots=\(memory.channel.layout.slots) weight=\(record.weight) time=\(rule?.timePercent ?? 100)"
        + " segments=\(rule?.segments ?? record.receiveBytes / 2048)\(isResumed ? " resume=yes" : "")",
      [
        memory.arena.descriptor, memory.channel.descriptor, memory.record.descriptor,
        memory.doorbells.hostEnd,
      ] + memory.doorbells.events)
  }

  func tellOfClaims(of instance: AttachedInstance) {
    for claim in instance.record.claims {
      path.tell("claim id=\(instance.record.id) claim=\(claim)", [])
    }
  }

  /// The driver host has taken the instance: now its process may begin.
  func welcome(_ instance: AttachedInstance, at now: UInt64) {
    let record = instance.record
    let memory = instance.memory
    let welcome = Welcome(
      id: record.id, macAddress: interface.macAddress.array, mtu: interface.mtu,
      offloads: interface.offloads, queues: interface.queues, channel: memory.channel.layout,
      receiveBytes: record.receiveBytes, arenaBytes: record.arenaBytes,
      maximumBytes: record.maximumBytes, use: .shared, hasCommands: true,
      credential: record.credential.bytes,
      claims: record.claims)
    // In the order of InstanceDescriptor.
    let descriptors =
      [
        memory.arena.descriptor, memory.channel.descriptor, memory.counters.descriptor,
        memory.doorbells.instanceEnd, instance.commandDescriptors?.memory ?? -1,
        instance.commandDescriptors?.doorbell ?? -1,
      ] + memory.doorbells.events
    guard let connection = instance.connection, connection.say(welcome.text, descriptors) else {
      return close(instance, "socket: it takes no welcome", at: now)
    }
    instance.commandDescriptors = nil
    memory.doorbells.closeGivenAway()
    instance.state = .welcomed
    instance.deadline = now + Self.readyLimit
    count("instances_attached")
    let claims = record.claims.map(\.description).joined(separator: " ")
    report(
      "instance \(record.id) (\(record.name)): process \(record.pid) of user \(record.uid), \(claims)"
    )
  }

  /// One has gone: those that wait may have what it had.
  func retryWaiting(at now: UInt64) {
    let retried = waiting
    waiting = []
    for connection in retried {
      if case .waiting(let request) = connection.stage {
        connection.stage = .silent
        attach(request, from: connection, at: now)
      }
    }
  }
}
