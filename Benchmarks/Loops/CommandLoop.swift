import Channel
import Commands
import Glibc
import Memory

/// Commands through a command channel, both ends in one thread: 8 on the way at once, of the kinds that are asked for
/// all the time.
public struct CommandLoop: PathLoop, ~Copyable {
  private var server: CommandServer
  private var client: CommandClient
  private var service = SteadyService()

  public init() throws {
    var server = try CommandServer()
    client = try server.attach(CommandMemory(layout: .standard))
    self.server = server
  }

  /// - Returns: commands that were done: 32 a burst.
  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var done = 0
    for _ in 0..<bursts * 4 {
      for index in 0..<8 { _ = try client.submit(SteadyService.command(index)) }
      _ = server.turn(&service)
      for _ in 0..<8 {
        if let completion = try client.poll(), completion.statusValue == 0 { done &+= 1 }
      }
    }
    return done
  }
}

/// Answers what is asked for all the time from a few numbers of its own.
public struct SteadyService: CommandService {
  /// Set by an `unregisterMemory`: for a server that has to come to an end.
  public var isOver = false
  private var statistics = InstanceStatistics(receivedPackets: 1, receivedBytes: 64)

  public init() {}

  /// Time, statistics and link state in turn.
  @inlinable
  public static func command(_ index: Int) -> CommandSubmission {
    switch index % 3 {
    case 0: CommandSubmission(.time)
    case 1: CommandSubmission(.statistics, .max)
    default: CommandSubmission(.linkState)
    }
  }

  public mutating func statistics(of caller: CommandCaller, queue: UInt64?) -> InstanceStatistics? {
    statistics
  }
  public mutating func linkState(for caller: CommandCaller) -> LinkState {
    LinkState(isUp: true, speed: 10_000, mtu: 1500)
  }
  public mutating func time(for caller: CommandCaller, monotonic: UInt64) -> CommandTime {
    CommandTime(monotonic: monotonic, realtime: 0)
  }
  public mutating func unregister(
    _ handle: MemoryHandleID, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    isOver = true
    return .done
  }
}

extension CommandServer {
  /// Takes a client in that lives in the same process.
  mutating func attach(_ memory: consuming CommandMemory) throws -> CommandClient {
    let copy = try CommandMemory(adopting: dup(memory.descriptor))
    let doorbells = try CommandDoorbell.pair()
    let isAdded = add(
      instance: 1, memory, doorbell: CommandDoorbell(adopting: doorbells.server))
    guard isAdded, let id = credentials.issue(instance: 1, uid: 0, expiry: .max, now: 0) else {
      throw UnsupportedLoop(description: "the command server takes no client")
    }
    return CommandClient(
      copy, doorbell: CommandDoorbell(adopting: doorbells.client), credential: id)
  }
}
