import Channel

/// Where the counters of a shared NIC can be read.
struct CounterPublication {
  let page: SupervisorCounters
  /// What the run is, in `name=value` pairs.
  let summary: String
  /// What the supervisor counts beside the server.
  let counters: () -> [(name: String, value: UInt64)]
  /// Adds the pages of device and host.
  let addPages: (inout CounterHandout) -> Void
  /// When the supervisor's are published again, in milliseconds.
  var next: UInt64 = 0

  init(
    page: SupervisorCounters, summary: String,
    counters: @escaping () -> [(name: String, value: UInt64)],
    addPages: @escaping (inout CounterHandout) -> Void
  ) {
    self.page = page
    self.summary = summary
    self.counters = counters
    self.addPages = addPages
  }

  /// Milliseconds between two publications.
  static let interval: UInt64 = 500
}

extension SharingServer {
  /// What the server itself has counted, and who is there.
  var ownCounters: [(name: String, value: UInt64)] {
    var values = counts.sorted { $0.key < $1.key }.map { (name: $0.key, value: $0.value) }
    values.append(("rules_changes", ruleBook.changes))
    values.append(("instances", UInt64(records.count)))
    values.append(("connections", UInt64(connections.count)))
    values.append(("memory_used_bytes", UInt64(records.reduce(0) { $0 + $1.arenaBytes })))
    values.append(("memory_budget_bytes", UInt64(policy.memory.budget ?? 0)))
    values.append(("memory_host_bytes", UInt64(hostBytes)))
    for record in records {
      values.append(("i\(record.index)_memory_bytes", UInt64(record.arenaBytes)))
      values.append(("i\(record.index)_process", UInt64(record.pid)))
    }
    return values
  }

  /// Now and then: nobody who reads it has to ask.
  func publishCounters(at now: UInt64) {
    guard let publication, now >= publication.next else { return }
    publish()
    self.publication?.next = now + CounterPublication.interval
  }

  private func publish() {
    guard let publication else { return }
    publication.page.publish(ownCounters + publication.counters())
  }

  /// Hands an administrator the pages that all counters are in.
  func handCounters(_ connection: PeerConnection) {
    guard let publication else {
      connection.say("end")
      return
    }
    publish()
    var handout = CounterHandout(publication.summary + " shared=yes")
    publication.page.add(to: &handout)
    publication.addPages(&handout)
    for case let instance? in instances {
      let record = instance.record
      handout.add(
        instance.memory.counters,
        "of=instance slot=\(record.index) id=\(record.id) name=\(record.name) pid=\(record.pid)")
    }
    handout.add(ruleBook)
    handout.say(to: connection)
  }
}
