import Channel
import Memory

/// What administrators ask for over the same socket: `stats`, `counters`, `memory`, `close id=`, `revoke id=`,
/// `grow id= bytes=`, `shrink id= bytes=`, `restart [program=]`, `rules …`, `stages`, `filter code=` and
/// `capture points= snap= ring= [precise=yes]`.
extension SharingServer {
  func serveAdministrator(
    _ message: ControlMessage, _ connection: PeerConnection, at now: UInt64
  ) {
    let words = [
      "stats", "counters", "memory", "close", "revoke", "grow", "shrink", "restart", "rules",
      "stages", "filter", "capture",
    ]
    guard words.contains(message.word) else {
      return refuse(
        connection,
        "message: there is attach, stats, counters, memory, close, revoke, grow, shrink, restart, rules, stages and capture"
      )
    }
    guard policy.administrators.contains(connection.uid) else {
      return refuse(connection, "administrator: user \(connection.uid) is none")
    }
    connection.stage = .administrator
    connection.deadline = now + Self.administratorLimit
    switch message.word {
    case "stats": sayStatistics(connection)
    case "counters": handCounters(connection)
    case "rules": serveRules(message, connection)
    case "stages":
      for line in stages?.descriptions ?? [] { connection.say(line) }
      connection.say("end")
    case "memory": sayMemory(connection, at: now)
    case "filter", "capture":
      guard let captures else { return refuse(connection, "capture: there is none here") }
      if let reason = captures.obey(message, from: connection) {
        refuse(connection, "capture: \(reason)")
      }
    case "restart":
      do throws(SupervisorError) {
        restarts.append((connection, try RestartRequest(message, uid: connection.uid)))
      } catch {
        connection.say(Refusal(reason: "restart: \(error)").text)
      }
    default:
      guard let id: UInt32 = message.number("id"), let instance = instance(id), !instance.isLeaving
      else {
        connection.say("unknown what=instance")
        return
      }
      obey(message, about: instance, from: connection, at: now)
    }
  }

  private func obey(
    _ message: ControlMessage, about instance: AttachedInstance, from connection: PeerConnection,
    at now: UInt64
  ) {
    switch message.word {
    case "revoke":
      count("credentials_revoked")
      commands.revoke(instance.record.credential)
      connection.say("end")
    case "close":
      count("instances_closed_by_administrators")
      close(instance, "an administrator has closed it", at: now)
      connection.say("end")
    default:
      guard let bytes: UInt64 = message.number("bytes"), bytes < 1 << 46 else {
        connection.say(Refusal(reason: "memory: how much is not said").text)
        return
      }
      let asker = MemoryAsker.administrator(connection)
      if message.word == "grow" {
        grow(instance, by: bytes, asker: asker, at: now)
      } else {
        shrink(instance, to: instance.record.arenaBytes - Int(bytes), asker: asker, at: now)
      }
    }
  }

  /// Names and values, as many as one message takes.
  private func sayStatistics(_ connection: PeerConnection) {
    connection.say(statistics: ownCounters + counters())
  }

  /// Who holds what. In bytes, and segments of an instance by who has them.
  private func sayMemory(_ connection: PeerConnection, at now: UInt64) {
    let values = Dictionary(counters(), uniquingKeysWith: { first, _ in first })
    for case let instance? in instances {
      let record = instance.record
      func segments(_ owner: String) -> UInt64 {
        values["rx_i\(record.index)_segments_\(owner)"] ?? 0
      }
      connection.say(
        "instance id=\(record.id) name=\(record.name) pid=\(record.pid) uid=\(record.uid)"
          + " state=\(instance.state) guaranteed=\(record.guaranteedBytes)"
          + " maximum=\(record.maximumBytes) now=\(record.arenaBytes)"
          + " registered=\(instance.registrations.reduce(0) { $0 + $1.byteCount })"
          + " receive=\(record.receiveBytes) segments-host=\(segments("host"))"
          + " segments-instance=\(segments("instance")) segments-sending=\(segments("sending"))"
          + " moving=\(instance.move == nil ? "no" : "yes")"
          + " idle-milliseconds=\(now - min(now, instance.lastTraffic))"
          + " claims=\(record.claims.map(\.description).sorted().joined(separator: ","))")
      sayExtent(
        record.id, 0, instance.memory.arena.byteCount, instance.memory.arena.pageSize, connection)
      for extent in instance.extents {
        sayExtent(record.id, extent.offset, extent.byteCount, extent.arena.pageSize, connection)
      }
    }
    let held = records.reduce(0) { $0 + $1.arenaBytes }
    connection.say(
      "budget bytes=\(policy.memory.budget ?? 0) used=\(held) pressure-events=\(counts["memory_pressure_events"] ?? 0)"
        + " trigger=\(pressure.descriptor >= 0 ? "yes" : "no") place=\(pressure.place.replacing(" ", with: "_"))"
    )
    connection.say(
      "host bytes=\(hostBytes) window=\(window.byteCount) reserved=\(window.reservedBytes)"
        + " segments-host=\(sum("_segments_host", values)) segments-device=\(sum("_segments_device", values))"
    )
    connection.say("end")
  }

  /// Over the NIC's queues.
  private func sum(_ name: String, _ values: [String: UInt64]) -> UInt64 {
    values.filter { $0.key.hasPrefix("rx_q") && $0.key.hasSuffix(name) }.values.reduce(0, &+)
  }

  private func sayExtent(
    _ id: UInt32, _ offset: Int, _ byteCount: Int, _ pages: Arena.PageSize,
    _ connection: PeerConnection
  ) {
    connection.say(
      "extent id=\(id) offset=\(offset) bytes=\(byteCount) pages=\(pages == .ordinary ? "ordinary" : "huge")"
    )
  }
}
