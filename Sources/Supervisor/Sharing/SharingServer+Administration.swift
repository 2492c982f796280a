import Channel

/// What administrators ask for over the same socket: `stats`, `memory`, `close id=`, `revoke id=`.
extension SharingServer {
  func serveAdministrator(
    _ message: ControlMessage, _ connection: PeerConnection, at now: UInt64
  ) {
    guard ["stats", "memory", "close", "revoke"].contains(message.word) else {
      return refuse(connection, "message: there is attach, stats, memory, close and revoke")
    }
    guard policy.administrators.contains(connection.uid) else {
      return refuse(connection, "administrator: user \(connection.uid) is none")
    }
    connection.stage = .administrator
    connection.deadline = now + Self.administratorLimit
    switch message.word {
    case "stats": sayStatistics(connection)
    case "memory": sayMemory(connection)
    default:
      guard let id: UInt32 = message.number("id"), let instance = instance(id), !instance.isLeaving
      else {
        connection.say("unknown what=instance")
        return
      }
      if message.word == "revoke" {
        count("credentials_revoked")
        commands.revoke(instance.record.credential)
      } else {
        count("instances_closed_by_administrators")
        close(instance, "an administrator has closed it", at: now)
      }
      connection.say("end")
    }
  }

  /// Names and values, as many as one message takes.
  private func sayStatistics(_ connection: PeerConnection) {
    var values = counts.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    values.append(("instances", UInt64(records.count)))
    values.append(("connections", UInt64(connections.count)))
    values += counters()
    var text = "stats"
    for (name, value) in values {
      let pair = " \(name)=\(value)"
      if text.utf8.count + pair.utf8.count > ControlMessage.maximumBytes {
        connection.say(text)
        text = "stats"
      }
      text += pair
    }
    connection.say(text)
    connection.say("end")
  }

  /// Who holds what. In bytes, and segments of an instance by who has them.
  private func sayMemory(_ connection: PeerConnection) {
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
          + " receive=\(record.receiveBytes) segments-host=\(segments("host"))"
          + " segments-instance=\(segments("instance")) segments-sending=\(segments("sending"))"
          + " claims=\(record.claims.map(\.description).sorted().joined(separator: ","))")
    }
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
}
