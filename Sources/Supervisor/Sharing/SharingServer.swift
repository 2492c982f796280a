import CLinux
import Channel
import Glibc
import Handles
import Memory
import Steering

/// Serves the socket of a shared NIC: lets processes become instances as the policy says, and takes everything back when
/// they end, however they end. One thread; nothing here waits.
final class SharingServer {
  let policy: Policy
  /// What instances are told of the NIC.
  let interface: InterfaceDescription
  let path: any InstancePath
  let keeper: HugepageKeeper
  let hasHugePages: Bool
  let windowIOVA: UInt64
  let report: (String) -> Void
  let commands: InstanceCommands
  /// Who captures packets; nil where nobody can.
  let captures: CaptureService?
  /// The broker of memory that instances register; nil where there is none.
  let handles: HandleService?
  private let listener: Int32
  private let closer = DescriptorCloser()

  var window: WindowPlan
  /// By slot.
  var instances = [AttachedInstance?](repeating: nil, count: maximumInstances)
  var generations = [UInt32](repeating: 0, count: maximumInstances)
  private(set) var connections: [Int32: PeerConnection] = [:]
  /// What has happened, by name.
  private(set) var counts: [String: UInt64] = [
    "instances_attached": 0, "instances_detached": 0, "instances_closed_by_host": 0,
    "detach_timeouts": 0,
  ]
  /// No connections are taken before, in milliseconds: there are no descriptors left.
  private var acceptsFrom: UInt64 = 0
  /// Of the driver host's own memory.
  var hostBytes = 0
  /// Huge pages that were added for instances that are gone.
  var unusedPages = 0
  /// Asked for what an instance has that is on its way out; tried again when one has gone.
  var waiting: [PeerConnection] = []
  /// Who wants another driver host: answered by whoever has it.
  var restarts: [(connection: PeerConnection, request: RestartRequest)] = []
  /// Which rule gets what, before claims do.
  var ruleBook: RuleBook
  /// What the device has been told to let through; nil where it filters nothing.
  var deviceFilter: StationFilter?
  /// Who waits for the driver host to go by a set of rules.
  var rulesWaiting: [(generation: UInt64, connection: PeerConnection)] = []
  /// What packets go through; nil where nothing was started yet.
  var stages: StageService?
  /// Counters of the host and the device, for administrators.
  var counters: () -> [(name: String, value: UInt64)] = { [] }
  /// Where the counters of all can be read; nil where nobody can ask for it.
  var publication: CounterPublication?
  private(set) var isClosed = false
  /// The kernel's word that memory is short.
  let pressure: MemoryPressure
  /// Until then nobody grows by his own wish, in milliseconds.
  var pressureEnds: UInt64 = 0
  /// When it is next looked who has received or sent anything.
  var nextTraffic: UInt64 = 0
  /// Packets in and out of the instance in a slot.
  var traffic: (Int) -> UInt64

  static let maximumInstances = 64
  static let maximumConnections = 256
  /// Milliseconds that a peer has to say what it wants, and to become ready once it has its welcome.
  static let handshakeLimit: UInt64 = 2000
  static let readyLimit: UInt64 = 5000
  /// Milliseconds that the driver host has to take an instance, and to let go of one.
  static let hostLimit: UInt64 = 3000
  /// Milliseconds between two words of an administrator.
  static let administratorLimit: UInt64 = 60_000

  /// - Parameters:
  ///   - listener: a socket that listens; it stays the caller's.
  ///   - report: gets a line whenever there is news.
  init(
    policy: Policy, listener: Int32, path: any InstancePath, interface: InterfaceDescription,
    window: WindowPlan, windowIOVA: UInt64, keeper: HugepageKeeper,
    hasHugePages: Bool, commands: InstanceCommands, handles: HandleService? = nil,
    captures: CaptureService? = nil, report: @escaping (String) -> Void
  ) {
    self.policy = policy
    self.listener = listener
    self.path = path
    self.interface = interface
    self.window = window
    self.windowIOVA = windowIOVA
    self.keeper = keeper
    self.hasHugePages = hasHugePages
    self.commands = commands
    ruleBook = RuleBook(queues: interface.queues)
    self.handles = handles
    self.captures = captures
    pressure = MemoryPressure(trigger: policy.memory.pressure)
    traffic = { slot in
      let counted = commands.statistics(of: slot)
      return counted.receivedPackets &+ counted.sentPackets
    }
    self.report = report
  }

  func count(_ name: String) { counts[name, default: 0] += 1 }

  /// Whether there is nothing to wait for.
  var areAllStuck: Bool { instances.allSatisfy { $0 == nil || $0?.state == .stuck } }

  /// Those that there are, by slot.
  var records: [InstanceRecord] { instances.compactMap { $0?.record } }

  // MARK: Events

  /// What to watch: when one becomes readable, ``step(at:)`` is due.
  func descriptors(at now: UInt64) -> [Int32] {
    (isClosed || now < acceptsFrom ? [] : [listener]) + [commands.descriptor]
      + (handles.map { [$0.descriptor] } ?? [])
      + (stages?.descriptors ?? []) + connections.values.flatMap { [$0.socket, $0.process] }
  }

  /// When ``step(at:)`` is due at the latest.
  var deadline: UInt64? {
    (connections.values.map(\.deadline) + instances.map { $0?.deadline }
      + instances.map { $0?.move?.deadline }
      + [acceptsFrom == 0 ? nil : acceptsFrom, handleDeadline, stages?.due])
      .compactMap(\.self).min()
  }

  /// Does all that is due.
  func step(at now: UInt64) {
    keeper.giveBackFree(&unusedPages)
    stages?.step(at: now)
    captures?.tidy(at: now)
    noteTraffic(at: now)
    publishCounters(at: now)
    serveHandles(at: now)
    if now >= acceptsFrom { acceptConnections(at: now) }
    for connection in connections.values { hear(connection, at: now) }
    for connection in connections.values {
      if let deadline = connection.deadline, now >= deadline {
        if case .waiting = connection.stage {
          refuse(connection, "timeout: another instance has not let go in time of what it asks for")
        } else {
          refuse(connection, "timeout: nothing was asked for in time")
        }
      }
    }
    for instance in instances {
      if let instance, let deadline = instance.deadline, now >= deadline {
        missedDeadline(instance, at: now)
      }
      if let instance, let deadline = instance.move?.deadline, now >= deadline {
        missedMove(instance, at: now)
      }
    }
  }

  private func acceptConnections(at now: UInt64) {
    if isClosed { return }
    acceptsFrom = 0
    // Bounded: a flood does not keep the others waiting.
    for _ in 0..<32 {
      let socket = linux_accept(listener)
      if socket < 0 {
        if [EMFILE, ENFILE, ENOMEM, ENOBUFS].contains(-socket) {
          count("refused_descriptors_exhausted")
          acceptsFrom = now + 100
        }
        return
      }
      adopt(socket, at: now)
    }
  }

  /// Takes a connected socket, which is the server's from now on.
  @discardableResult
  func adopt(_ socket: Int32, at now: UInt64) -> PeerConnection? {
    guard
      let connection = PeerConnection(
        socket: socket, deadline: now + Self.handshakeLimit, closer: closer)
    else { return nil }
    guard closer.hasRoom(connection.uid) else {
      count("refused_descriptors")
      connection.say(Refusal(reason: "descriptors: this user's are still being closed").text)
      return nil
    }
    let others = connections.values.count { $0.uid == connection.uid }
    if others >= policy.connectionsPerUser || connections.count >= Self.maximumConnections {
      count("refused_connections")
      connection.sayLast(Refusal(reason: "connections: this user has \(others) already").text)
      return nil
    }
    connections[socket] = connection
    return connection
  }

  /// Reads what a peer has said. Bounded: who talks without end is heard again at the next step.
  private func hear(_ connection: PeerConnection, at now: UInt64) {
    for _ in 0..<16 where connections[connection.socket] === connection {
      switch connection.next(at: now) {
      case .nothing: return
      case .end: end(connection, "its process has ended", at: now)
      case .offence(let what): offend(connection, what, at: now)
      case .message(let message): obey(message, from: connection, at: now)
      }
    }
  }

  private func obey(_ message: ControlMessage, from connection: PeerConnection, at now: UInt64) {
    switch connection.stage {
    case .silent:
      if message.word == "attach" {
        attach(message, from: connection, at: now)
      } else {
        serveAdministrator(message, connection, at: now)
      }
    case .administrator: serveAdministrator(message, connection, at: now)
    case .waiting, .capturing: offend(connection, "message", at: now)
    case .instance(let slot):
      guard let instance = instances[slot] else { return }
      switch message.word {
      case "ready" where instance.state == .welcomed:
        instance.state = .running
        instance.deadline = nil
        instance.lastTraffic = now
        report("instance \(instance.record.id) (\(instance.record.name)) is ready")
      case "shrunk" where noteLetGo(message, of: instance, at: now): break
      case "error":
        report("instance \(instance.record.id) (\(instance.record.name)): \(message.rest)")
        end(connection, "it said that it cannot go on", at: now)
      case "bye": end(connection, "it said good-bye", at: now)
      default: offend(connection, "message", at: now)
      }
    }
  }

  // MARK: Ends of connections

  /// Says why nothing comes of it, counts the reason's first word, and closes.
  func refuse(_ connection: PeerConnection, _ reason: String) {
    count("refused_\(reason.prefix { $0 != ":" })")
    connection.sayLast(Refusal(reason: reason).text)
    drop(connection)
  }

  private func offend(_ connection: PeerConnection, _ what: String, at now: UInt64) {
    guard let slot = connection.slot, let instance = instances[slot] else {
      return refuse(connection, "\(what): nobody has asked for that")
    }
    count("offences_\(what)")
    close(instance, "\(what): nobody has asked for that", at: now)
  }

  private func end(_ connection: PeerConnection, _ reason: String, at now: UInt64) {
    drop(connection)
    if let slot = connection.slot, let instance = instances[slot] {
      leave(instance, reason, at: now)
    }
  }

  /// Forgets a connection, which closes it.
  func drop(_ connection: PeerConnection) {
    connections[connection.socket] = nil
    // Who captures reads what there is when the run ends.
    if !isClosed { captures?.end(connection) }
    waiting.removeAll { $0 === connection }
    rulesWaiting.removeAll { $0.connection === connection }
    if let slot = connection.slot, instances[slot]?.connection === connection {
      instances[slot]?.connection = nil
    }
  }

  // MARK: The end

  /// Takes no more connections, and asks all instances to end.
  func close() {
    isClosed = true
    for connection in connections.values where connection.slot == nil { drop(connection) }
    for case let instance? in instances where !instance.isLeaving {
      instance.memory.channel.askToEnd()
      instance.connection?.say("stop")
      wake(instance)
    }
  }

  /// Ends all that is still there.
  func leaveAll(_ reason: String, at now: UInt64) {
    for case let instance? in instances { leave(instance, reason, at: now) }
  }
}
