import CLinux
import Channel
import Commands
import Glibc
import Histogram
import Loops
import Memory
import Supervisor

/// The server's side of commands between two processes: over a command channel, and over a pair of sockets with the same
/// credentials, the same entries and the same service. The client's side is ``CommandClientSide``.
public final class CommandPair {
  private var server: CommandServer
  private var service = SteadyService()
  private let client: LineProcess
  /// The server's end of the sockets that are the peer.
  private let socket: Int32
  private static let instance: UInt32 = 1

  public init() throws {
    var server = try CommandServer()
    let memory = try CommandMemory(layout: .standard)
    let shared = dup(memory.descriptor)
    let doorbells = try CommandDoorbell.pair()
    var ends: [Int32] = [-1, -1]
    guard socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0
    else { throw SupervisorError.system("socketpair", errno) }
    let isAdded = server.add(
      instance: Self.instance, memory, doorbell: CommandDoorbell(adopting: doorbells.server))
    // One for each of the two ways, since each counts its commands from 1.
    let credentials = (0..<2).compactMap { _ in
      server.credentials.issue(instance: Self.instance, uid: getuid(), expiry: .max, now: 0)
    }
    guard isAdded, credentials.count == 2 else {
      throw SupervisorError.input("the command server takes no client")
    }
    let words = credentials.flatMap { [$0.high, $0.low] }.map { String($0) }
    defer { for descriptor in [shared, doorbells.client, ends[1]] { close(descriptor) } }
    client = try LineProcess(
      name: "the command channel's other end", program: Programs.martlet,
      arguments: ["bench-end", "commands"] + words,
      descriptors: [shared, doorbells.client, ends[1]])
    self.server = server
    socket = ends[0]
    _ = try client.line { $0 == "ready" }
  }

  deinit { close(socket) }

  /// One at a time through the channel, for so long.
  func roundTrips(milliseconds: Int) throws -> Sample {
    try serve("roundtrip 1 \(milliseconds)", milliseconds) { serveChannel() }
  }

  /// 32 on the way through the channel.
  func rate(milliseconds: Int) throws -> Sample {
    try serve("rate 32 \(milliseconds)", milliseconds) { serveChannel() }
  }

  /// One at a time over the sockets.
  /// - Parameter polls: both ends look again and again and never sleep.
  func socketRoundTrips(polls: Bool, milliseconds: Int) throws -> Sample {
    let word = polls ? "polled-socket-roundtrip" : "socket-roundtrip"
    return try serve("\(word) 1 \(milliseconds)", milliseconds) { serveSocket(polls) }
  }

  /// 32 on the way over the sockets.
  func socketRate(polls: Bool, milliseconds: Int) throws -> Sample {
    let word = polls ? "polled-socket-rate" : "socket-rate"
    return try serve("\(word) 32 \(milliseconds)", milliseconds) { serveSocket(polls) }
  }

  /// So many commands one at a time through the channel, for strace(1) to look at.
  public func exchange(_ count: Int) throws {
    client.send("count 1 \(count)")
    _ = serveChannel()
    _ = try client.line(withinMilliseconds: 20_000) { results($0) != nil }
  }

  private func serve(
    _ line: String, _ milliseconds: Int, _ body: () -> Double
  ) throws -> Sample {
    client.send(line)
    pinThread(toCore: 0)
    defer { unpinThread() }
    let share = body()
    let answer = try client.line(withinMilliseconds: milliseconds + 5000) { results($0) != nil }
    let values = results(answer) ?? []
    return Sample(Array(values.dropLast()), cpuShare: min(share, values[values.count - 1]))
  }

  /// Until the client says that it is over.
  /// - Returns: this thread's share of its core.
  @inline(never)
  private func serveChannel() -> Double {
    service.isOver = false
    let watch = Stopwatch()
    while !service.isOver { if !server.turn(&service) { cpu_pause() } }
    return watch.cpuShare
  }

  /// - Returns: this thread's share of its core; 1 where it sleeps, since it has what it wants then.
  @inline(never)
  private func serveSocket(_ polls: Bool) -> Double {
    service.isOver = false
    let watch = Stopwatch()
    // Invariant: 64 bytes each, aligned to 8, until this returns.
    let entry = UnsafeMutableRawPointer.allocate(byteCount: 128, alignment: 64)
    defer { entry.deallocate() }
    let flags = polls ? Int32(MSG_DONTWAIT) : 0
    while !service.isOver {
      guard recv(socket, entry, 64, flags) == 64 else { continue }
      answer(CommandSubmission(reading: entry)).write(to: entry + 64)
      _ = send(socket, entry + 64, 64, Int32(MSG_NOSIGNAL))
    }
    return polls ? watch.cpuShare : 1
  }

  /// What the server does with a command, without its rings.
  private func answer(_ command: CommandSubmission) -> CommandCompletion {
    let now = monotonic_nanoseconds()
    let (status, credential) = server.credentials.admit(
      command.credential, sequence: command.sequence, instance: Self.instance, now: now)
    guard status == .done else {
      return CommandCompletion(status: status, number: command.number, sequence: command.sequence)
    }
    let caller = CommandCaller(instance: Self.instance, uid: credential.uid)
    var values = InstanceStatistics().values
    switch CommandNumber(rawValue: command.number) {
    case .statistics: values = service.statistics(of: caller, queue: nil)?.values ?? values
    case .linkState: values = service.linkState(for: caller).values
    case .time: values = service.time(for: caller, monotonic: now).values
    default: service.isOver = true
    }
    return CommandCompletion(
      status: .done, number: command.number, sequence: command.sequence, values: values)
  }
}
