import CLinux
import Channel
import Commands
import Glibc
import Host
import Memory
import Steering

/// The command channels of all instances on a shared NIC, and what answers them. One thread.
final class InstanceCommands {
  private var server: CommandServer
  private var service: InstanceCommandService
  /// Claims that the driver host has been asked about, by instance, the oldest first: it answers in order.
  var asked: [UInt32: [AskedClaim]] = [:]

  /// What the driver host has been asked.
  struct AskedClaim {
    var word: InstanceCommandService.ClaimCommand.Word
    var claim: Claim
    /// Of the command that it is for; nil where a command is being undone.
    var token: CommandToken?
  }

  /// How long after a command another one is looked for without sleep, in nanoseconds: as driver hosts do.
  private static let patience: UInt64 = 50_000
  /// For how long commands may keep everything else waiting, in nanoseconds.
  private static let longestTurn: UInt64 = 1_000_000

  /// - Parameters:
  ///   - hostQueues: of the driver host.
  ///   - counters: of its counter page; the value's from now on.
  init(
    _ interface: InterfaceDescription, hostQueues: Int, counters: Int32
  ) throws(SupervisorError) {
    let page = try asInput { () throws(MemoryError) -> CounterPage in
      try CounterPage(
        adopting: counters,
        capacity: DriverHost.counterCapacity(queues: hostQueues, isShared: true), writable: false)
    }
    server = try asInput { () throws(MemoryError) -> CommandServer in try CommandServer() }
    service = InstanceCommandService(
      page, InstanceCounterPlaces(queues: hostQueues),
      link: LinkState(isUp: interface.linkIsUp, mtu: UInt64(interface.mtu)))
  }

  /// What the instance in a slot has received and sent.
  func statistics(of slot: Int) -> InstanceStatistics { service.statistics(of: slot) }

  /// Readable when a client rings.
  var descriptor: Int32 { server.descriptor }
  var counters: [(name: String, value: UInt64)] { server.counters.named }

  /// The driver host has described its interface again.
  func note(_ interface: ControlMessage) {
    if let link = interface["link"] { service.link.isUp = link == "up" }
  }

  /// Makes an instance's channel and its credential.
  /// - Parameters:
  ///   - uid: of its process.
  ///   - seconds: for which its credential is good.
  func open(
    _ instance: UInt32, uid: uid_t, seconds: Int
  ) throws(SupervisorError) -> CommandDescriptors {
    let now = monotonic_nanoseconds()
    let memory = try asInput { () throws(MemoryError) -> CommandMemory in
      try CommandMemory(layout: .standard)
    }
    let ends = try asInput { () throws(MemoryError) -> (server: Int32, client: Int32) in
      try CommandDoorbell.pair()
    }
    let copy = dup(memory.descriptor)
    let isAdded = server.add(
      instance: instance, memory, doorbell: CommandDoorbell(adopting: ends.server))
    let credential = server.credentials.issue(
      instance: instance, uid: uid, expiry: now + UInt64(seconds) * 1_000_000_000, now: now)
    guard isAdded, copy >= 0, let credential else {
      Glibc.close(ends.client)
      if copy >= 0 { Glibc.close(copy) }
      close(instance)
      throw .input("there is no room for one more command channel")
    }
    return CommandDescriptors(memory: copy, doorbell: ends.client, credential: credential)
  }

  /// From now on commands with this credential are refused, those that are being carried out included.
  func revoke(_ credential: CredentialID) { server.credentials.revoke(credential) }

  /// Ends an instance's channel: its credential is stale from now on.
  func close(_ instance: UInt32) {
    server.remove(instance: instance)
    asked[instance] = nil
  }

  /// Serves while commands come and for a moment after, a millisecond at most.
  /// - Returns: whether another may come any moment: it is too early to sleep.
  func serve() -> Bool {
    guard server.turn(&service) else { return false }
    let start = monotonic_nanoseconds()
    var last = start
    while service.claims.isEmpty && service.moves.isEmpty && service.registrations.isEmpty {
      let now = monotonic_nanoseconds()
      if now - last > Self.patience { return false }
      if now - start > Self.longestTurn { return true }
      if server.turn(&service) { last = now } else { cpu_pause() }
    }
    return true
  }

  /// - Returns: whether the thread may sleep: false where a command has come meanwhile.
  func prepareToSleep() -> Bool { server.prepareToSleep() }

  /// What has been asked for since the last time.
  func takeClaims() -> [InstanceCommandService.ClaimCommand] {
    defer { service.claims.removeAll(keepingCapacity: true) }
    return service.claims
  }

  /// Sizes that have been asked for since the last time.
  func takeMoves() -> [InstanceCommandService.MoveCommand] {
    defer { service.moves.removeAll(keepingCapacity: true) }
    return service.moves
  }

  /// Memory that is to be registered or let go of, since the last time.
  func takeRegistrations() -> [InstanceCommandService.RegistrationCommand] {
    defer { service.registrations.removeAll(keepingCapacity: true) }
    return service.registrations
  }

  @discardableResult
  func complete(_ token: CommandToken, _ outcome: CommandOutcome) -> CommandServer.Completed {
    server.complete(token, outcome)
  }

  /// The next instance whose command channel has been closed because it broke its rules.
  func nextClosed() -> (instance: UInt32, reason: CommandClosure)? { server.nextClosed() }
}

/// What an instance gets of its command channel, closed once it has been sent.
final class CommandDescriptors {
  let memory: Int32
  /// The client's end.
  let doorbell: Int32
  let credential: CredentialID

  init(memory: Int32, doorbell: Int32, credential: CredentialID) {
    self.memory = memory
    self.doorbell = doorbell
    self.credential = credential
  }

  deinit {
    close(memory)
    close(doorbell)
  }
}
