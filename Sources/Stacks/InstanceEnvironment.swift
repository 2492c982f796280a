import CLinux
import Channel
import Driver
import Glibc
import Memory
import Steering

/// What a stack instance is given: its interface, its memory, its channel and the connection to its supervisor. Made
/// from a `Welcome`, whether `martlet run` has started the process or it has attached by itself.
public final class InstanceEnvironment {
  /// What the supervisor said.
  public let welcome: Welcome
  /// Goes when the environment goes.
  public let connection: SupervisorConnection
  /// The packets' memory: the receive part, then the transmit part, whose end moves while the instance runs.
  public internal(set) var arena: ExtensibleArena
  /// The rings' memory; ``InstanceChannel`` has their ends.
  public let channel: ChannelMemory
  /// For the instance to name and set: `martlet` shows them.
  public let counters: CounterPage
  /// One end of a pair of sockets: readable when the host has news and the instance has said that it sleeps.
  public let ownDoorbell: Int32
  /// Eventfds that wake the host's threads, one for each queue.
  public let hostDoorbells: [Int32]
  /// The command channel's memory and the instance's end of its doorbell; nil where there is none.
  public let commands: (memory: Int32, doorbell: Int32)?
  /// What the supervisor last said of the link.
  public internal(set) var linkIsUp = true
  /// Driver hosts that have taken the place of others since the instance began. Nothing need be done about it: what was being
  /// received or sent meanwhile can be lost, as on any wire.
  public internal(set) var hostRestarts = 0
  /// What the supervisor has said of the arena's end, for ``InstanceLoop``.
  var moves = MemoryMoves()
  /// Whether there is anything in it.
  @usableFromInline @exclusivity(unchecked) var isMoving = false
  /// Asks for more memory; nil before the first time.
  var request: MemoryRequest?

  /// What has been registered and has not been revoked.
  var registered: [RegisteredRange] = []

  /// Entries of an instance's counter page.
  public static let counterCapacity = 64

  /// The NIC's, the first byte on the wire first.
  public var macAddress: [UInt8] { welcome.macAddress }
  /// Bytes of the largest packet without its Ethernet header.
  public var mtu: Int { welcome.mtu }
  /// What the device does of sums and segmentation.
  public var offloads: NetworkInterface.Offloads { .init(rawValue: welcome.offloads) }
  /// Where the transmit part begins, in bytes from the arena's start.
  public var receiveBytes: Int { welcome.receiveBytes }
  /// Queue pairs.
  public var queues: Int { welcome.queues }

  /// Attaches to the NIC behind the socket of `martlet run --share PATH`.
  public static func attach(
    path: String, request: AttachRequest
  ) throws(StackError) -> InstanceEnvironment {
    try InstanceEnvironment(
      asStackError { () throws(AttachError) -> SupervisorConnection in
        try SupervisorConnection.attach(path: path, request: request)
      })
  }

  /// Takes the place that `martlet run` or `martlet attach` has made for this process.
  public static func inherited() throws(StackError) -> InstanceEnvironment {
    try InstanceEnvironment(SupervisorConnection())
  }

  /// Does what the instance is for, and tells the supervisor where that throws.
  public func run<R>(_ body: () throws(StackError) -> R) throws(StackError) -> R {
    do throws(StackError) {
      return try body()
    } catch {
      connection.send("error \(error)")
      throw error
    }
  }

  /// Waits for the welcome and maps what comes with it.
  /// - Throws: the supervisor's reason where it refuses, or what is wrong with what it gives.
  public init(_ connection: consuming SupervisorConnection) throws(StackError) {
    do throws(StackError) {
      let (welcome, received) = try asStackError {
        () throws(AttachError) -> (Welcome, descriptors: [Int32]) in
        try connection.awaitWelcome()
      }
      let descriptors = ReceivedDescriptors(welcome, received)
      arena = try asStackError { () throws(MemoryError) -> ExtensibleArena in
        try ExtensibleArena(
          adopting: descriptors.take(.arena), byteCount: welcome.arenaBytes,
          maximum: welcome.maximumBytes, at: welcome.arenaAddress)
      }
      channel = try asStackError { () throws(ChannelError) -> ChannelMemory in
        try ChannelMemory(adopting: descriptors.take(.channel), layout: welcome.channel)
      }
      counters = try asStackError { () throws(MemoryError) -> CounterPage in
        try CounterPage(
          adopting: descriptors.take(.counters), capacity: Self.counterCapacity, writable: true)
      }
      ownDoorbell = descriptors.take(.ownDoorbell)
      hostDoorbells = (0..<welcome.queues).map { descriptors.take(.hostDoorbell($0)) }
      commands =
        welcome.hasCommands
        ? (memory: descriptors.take(.commands), doorbell: descriptors.take(.commandDoorbell)) : nil
      self.welcome = welcome
    } catch {
      connection.send("error \(error)")
      throw error
    }
    self.connection = connection
  }

  deinit {
    close(ownDoorbell)
    for doorbell in hostDoorbells { close(doorbell) }
    if let commands {
      close(commands.memory)
      close(commands.doorbell)
    }
  }

  /// Takes what has been rung.
  /// - Returns: false where nobody is left who could ring.
  func clearDoorbell() -> Bool {
    var rings = InlineArray<64, UInt64>(repeating: 0)
    return recv(ownDoorbell, &rings, 512, Int32(MSG_DONTWAIT)) != 0
  }

  /// The instance's end of its command channel; nil where it has none. To be made once: both ends count.
  public func makeCommandClient() throws(StackError) -> CommandClient? {
    guard let commands, let credential = CredentialID(bytes: welcome.credential) else { return nil }
    let memory = try asStackError { () throws(CommandError) -> CommandMemory in
      try CommandMemory(adopting: dup(commands.memory))
    }
    return CommandClient(
      memory, doorbell: CommandDoorbell(adopting: dup(commands.doorbell)), credential: credential)
  }

  /// Whether the instance may send from an address, of at least some ports.
  public func maySend(from address: NetworkAddress) -> Bool {
    welcome.use == .exclusive
      || welcome.claims.contains {
        switch $0 {
        case .address(let own), .ports(let own, _, _): own == address
        case .group: false
        case .rest: true
        }
      }
  }

  /// What the supervisor has said since the last time.
  /// - Returns: false when the instance is to end.
  /// - Throws: why the supervisor has closed the instance.
  @usableFromInline
  func hearNews() throws(StackError) -> Bool {
    // Bounded: the supervisor is heard again at the next turn.
    for _ in 0..<16 {
      switch ControlMessage.receive(from: connection.descriptor) {
      case .nothing: return true
      case .end: return false
      case .message(let message, let descriptors):
        if message.word == "extent" {
          try extend(message, descriptors)
          continue
        }
        for descriptor in descriptors { close(descriptor) }
        switch message.word {
        case "stop": return false
        case "revoked":
          guard let position: UInt64 = message.number("position") else { break }
          registered.removeAll { $0.position == position }
        case "link": linkIsUp = message.rest == "up"
        case "restarted": hostRestarts += 1
        case "shrink":
          guard let bytes: Int = message.number("bytes") else { break }
          moves.noteShrink(to: bytes)
          isMoving = true
        case "closed":
          throw StackError("the supervisor has closed this instance: \(Self.reason(message))")
        default: break
        }
      }
    }
    return true
  }

  /// After the channel was asked to end.
  /// - Throws: why, where it was closed for a reason.
  @usableFromInline
  func checkEnd() throws(StackError) {
    let reason = channel.end.reason
    if reason != .none {
      throw StackError(
        "the driver host has closed this instance: \(reason.name.replacing("_", with: " "))")
    }
    _ = try hearNews()
  }

  private static func reason(_ message: ControlMessage) -> String {
    message.rest.hasPrefix("reason=") ? String(message.rest.dropFirst(7)) : message.rest
  }
}

/// Descriptors that came with a welcome; those that nobody has taken are closed.
private final class ReceivedDescriptors {
  private let welcome: Welcome
  private var descriptors: [Int32]

  init(_ welcome: Welcome, _ descriptors: [Int32]) {
    self.welcome = welcome
    self.descriptors = descriptors
  }

  deinit { for descriptor in descriptors where descriptor >= 0 { close(descriptor) } }

  /// The descriptor, which is the caller's from now on.
  func take(_ which: InstanceDescriptor) -> Int32 {
    guard let position = welcome.position(of: which) else { return -1 }
    defer { descriptors[position] = -1 }
    return descriptors[position]
  }
}

extension InstanceEnvironment {
  /// Where received packets lie.
  public var receivePart: ReceivePart { ReceivePart(start: arena.address, byteCount: receiveBytes) }
}

/// The part of an arena in which received packets lie.
@frozen
public struct ReceivePart {
  // Invariant: mapped as long as the instance's environment.
  @usableFromInline let start: UnsafeMutableRawPointer
  @usableFromInline let byteCount: Int

  /// A received piece's bytes; nil where it does not lie here.
  @inlinable
  public func bytes(of piece: Descriptor) -> UnsafeMutableRawBufferPointer? {
    guard piece.position &+ UInt64(piece.length) <= UInt64(byteCount) else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: start + Int(piece.position), count: Int(piece.length))
  }
}

/// Why an instance cannot go on: one line.
public struct StackError: Error, CustomStringConvertible {
  /// What is wrong and, where that is known, what to do.
  public var description: String
  /// - Parameter description: one line.
  public init(_ description: String) { self.description = description }

  @inline(never) @usableFromInline
  init(brokenBy error: ChannelError) {
    description = "the driver host broke the channel's rules: \(error)"
  }
}

func asStackError<R: ~Copyable, E: Error>(_ body: () throws(E) -> R) throws(StackError) -> R {
  do throws(E) {
    return try body()
  } catch {
    throw StackError("\(error)")
  }
}
