import Channel

/// A driver host ends and another one takes its place. Instances that run are told, and need not do anything: their
/// channels, memory, claims and connections are as before, and the new host is told of all of them.
extension SharingServer {
  /// There is no driver host, and the device does no DMA: nobody has what instances on their way out had. Before the device
  /// learns of any memory again.
  func noteHostGone(at now: UInt64) {
    stages?.noteHostGone(at: now)
    for case let instance? in instances {
      instance.missingUnmaps = 0
      instance.missingExtents = 0
      switch instance.state {
      case .announced, .welcomed, .running: settle(instance, at: now)
      case .leaving, .stuck:
        instance.state = .leaving
        unmap(instance, at: now)
      case .unmapping: forget(instance, at: now)
      }
    }
  }

  /// What was to be taken from an instance that stays has been.
  private func settle(_ instance: AttachedInstance, at now: UInt64) {
    for extent in instance.registrations {
      switch extent.stage {
      case .registering, .registered: break
      case .unregistering, .unmapping: unmap(extent, of: instance)
      }
    }
    switch instance.move?.stage {
    case .withdrawing(let end): unmap(instance, to: end, at: now)
    case .unmapping: noteUnmapped(instance, at: now)
    default: break
    }
  }

  /// Another driver host is in place. It hears of all claims before any instance is on it: one that claims a whole address would
  /// get what is for another one that claims a port of it.
  func restore(at now: UInt64) {
    deviceFilter = nil
    stages?.restore()
    tellOfRules(isAgain: true)
    let instances = instances.compactMap(\.self)
    let known = instances.filter { $0.state == .welcomed || $0.state == .running }
    let announced = instances.filter { $0.state == .announced }
    for instance in known {
      announce(instance, isResumed: true)
      tellOfClaims(of: instance)
      instance.missingExtents = instance.extents.count
      for extent in instance.extents { tellOfExtent(extent, of: instance) }
      for extent in instance.registrations { tellOfRegistration(extent, of: instance) }
    }
    for instance in announced {
      announce(instance)
      tellOfClaims(of: instance)
      instance.deadline = now + Self.hostLimit
    }
    for instance in known {
      path.tell("resume id=\(instance.record.id)", [])
      if instance.connection?.say("restarted") == true { wake(instance) }
    }
    for instance in known + announced {
      if case .extending(let extent)? = instance.move?.stage { tellOfExtent(extent, of: instance) }
      let id = instance.record.id
      for asked in commands.asked[id] ?? [] {
        // What is to be given up, the host has got with all other claims.
        path.tell("\(asked.word) id=\(id) claim=\(asked.claim)", [])
      }
    }
  }
}
