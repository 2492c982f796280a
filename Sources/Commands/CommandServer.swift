import CLinux
import Channel
import Glibc
import Memory

/// Serves the command channels of many instances from one thread.
///
///     loop: if server.turn(&service) { continue } else if server.prepareToSleep() { poll(server.descriptor) }
///
/// Each turn takes a bounded number of commands from each client, so that one which floods only makes its own wait. In
/// the steady state a turn makes no system call and allocates nothing.
public struct CommandServer: ~Copyable {
  /// Clients at once.
  public static let maximumClients = 64
  /// Commands that one turn takes from one client.
  public static let burst = 8

  public var credentials: CredentialCache
  public private(set) var counters = CommandCounters()
  /// Readable while a client's doorbell has something to say: for poll(2), beside whatever else the thread waits for.
  public let descriptor: Int32
  // Invariant: the places whose bit is set in `present` hold a client each, the others nothing. `open` is a part of
  // `present`: those that are served.
  private let clients: UnsafeMutablePointer<ServedClient>
  private var present: UInt64 = 0
  private var open: UInt64 = 0
  private var isAwake = true
  /// Of the next client's tokens.
  private var generation: UInt32 = 0
  /// Places of clients that were closed and not reported yet.
  private var unreported: UInt64 = 0

  /// - Parameter credentials: how many the cache holds.
  /// - Throws: the system's reason.
  public init(credentials capacity: Int = 256) throws(MemoryError) {
    descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard descriptor >= 0 else { throw .system(call: "epoll_create1", errno: errno) }
    credentials = CredentialCache(capacity: capacity)
    clients = .allocate(capacity: Self.maximumClients)
  }

  deinit {
    for place in 0..<Self.maximumClients where present & 1 << UInt64(place) != 0 {
      (clients + place).deinitialize(count: 1)
    }
    clients.deallocate()
    Glibc.close(descriptor)
  }

  // MARK: clients

  /// Takes a client in.
  /// - Parameters:
  ///   - instance: as its credentials name it; not one that is here already.
  ///   - doorbell: the server's end.
  /// - Returns: false where there are as many as there can be.
  public mutating func add(
    instance: UInt32, _ memory: consuming CommandMemory, doorbell: consuming CommandDoorbell
  ) -> Bool {
    precondition(place(of: instance) == nil)
    let place = (~present).trailingZeroBitCount
    guard place < Self.maximumClients else { return false }
    var event = epoll_event(events: EPOLLIN.rawValue, data: epoll_data_t(u64: UInt64(place)))
    guard epoll_ctl(descriptor, EPOLL_CTL_ADD, doorbell.descriptor, &event) == 0 else {
      return false
    }
    (clients + place).initialize(
      to: ServedClient(
        instance: instance, end: CommandServerEnd(memory, doorbell: doorbell),
        generation: generation))
    present |= 1 << UInt64(place)
    open |= 1 << UInt64(place)
    return true
  }

  /// Ends a client: its credentials are stale, its commands that wait are forgotten, and it can read why.
  /// - Returns: whether there was one.
  @discardableResult
  public mutating func remove(instance: UInt32, _ closure: CommandClosure = .ended) -> Bool {
    credentials.end(instance: instance)
    guard let place = place(of: instance) else { return false }
    shut(place, closure)
    // Any token of the next client here differs from any of this one.
    generation = max(generation, clients[place].nextGeneration)
    (clients + place).deinitialize(count: 1)
    present &= ~(1 << UInt64(place))
    unreported &= ~(1 << UInt64(place))
    return true
  }

  /// The next client that has been closed because it broke the rules, each once. It keeps its place until it is removed.
  public mutating func nextClosed() -> (instance: UInt32, reason: CommandClosure)? {
    while unreported != 0 {
      let place = unreported.trailingZeroBitCount
      unreported &= unreported - 1
      if let closure = clients[place].closure { return (clients[place].instance, closure) }
    }
    return nil
  }

  private func place(of instance: UInt32) -> Int? {
    var left = present
    while left != 0 {
      let place = left.trailingZeroBitCount
      left &= left &- 1
      if clients[place].instance == instance { return place }
    }
    return nil
  }

  /// Serves it no more, and says why, once.
  private mutating func shut(_ place: Int, _ closure: CommandClosure) {
    let bit: UInt64 = 1 << UInt64(place)
    guard open & bit != 0 else { return }
    open &= ~bit
    clients[place].closure = closure
    clients[place].end.close(closure)
    _ = epoll_ctl(descriptor, EPOLL_CTL_DEL, clients[place].end.doorbellDescriptor, nil)
  }

  private mutating func close(_ place: Int, breaking closure: CommandClosure) {
    shut(place, closure)
    unreported |= 1 << UInt64(place)
    counters.closed += 1
  }

  // MARK: turns

  /// Takes and answers up to ``burst`` commands of each client.
  /// - Returns: whether there were any.
  @inlinable
  public mutating func turn<Service: CommandService & ~Copyable>(_ service: inout Service) -> Bool {
    var left = clientsWithCommands()
    if left == 0 { return false }
    let now = Self.now
    while left != 0 {
      let place = left.trailingZeroBitCount
      left &= left &- 1
      for _ in 0..<Self.burst {
        guard let taken = take(place) else { break }
        if let command = admit(taken, place, now) { perform(command, &service) }
      }
      publish(place)
    }
    return true
  }

  /// A command whose credential is good.
  @frozen @usableFromInline
  struct Admitted: BitwiseCopyable {
    @usableFromInline var submission: CommandSubmission
    @usableFromInline var number: CommandNumber
    @usableFromInline var caller: CommandCaller
    @usableFromInline var credential: CredentialCache.Reference
    @usableFromInline var place: Int
    @usableFromInline var now: UInt64
  }

  @inlinable @inline(__always)
  mutating func perform<Service: CommandService & ~Copyable>(
    _ command: Admitted, _ service: inout Service
  ) {
    let caller = command.caller
    switch command.number {
    case .statistics:
      let queue = command.submission.operands[0]
      if let found = service.statistics(of: caller, queue: queue == .max ? nil : queue) {
        answer(command, found.values)
      } else {
        refuse(command.submission, command.place, .notFound)
      }
    case .linkState: answer(command, service.linkState(for: caller).values)
    case .time: answer(command, service.time(for: caller, monotonic: command.now).values)
    case .join, .leave, .registerMemory, .unregisterMemory, .grow, .shrink:
      guard let token = begin(command) else { return }
      finish(token, begun(command, token, &service))
    }
  }

  @inlinable
  func begun<Service: CommandService & ~Copyable>(
    _ command: Admitted, _ token: CommandToken, _ service: inout Service
  ) -> CommandOutcome {
    let operands = command.submission.operands
    let handle = MemoryHandleID(high: operands[0], low: operands[1])
    let caller = command.caller
    switch command.number {
    case .registerMemory: return service.register(handle, for: caller, token)
    case .unregisterMemory: return service.unregister(handle, for: caller, token)
    case .grow: return service.grow(by: operands[0], for: caller, token)
    case .shrink: return service.shrink(by: operands[0], for: caller, token)
    default: break
    }
    guard let text = text(of: command) else { return .refused(.malformed) }
    return command.number == .join
      ? service.join(text, for: caller, token) : service.leave(text, for: caller, token)
  }

  /// Those that have submitted something.
  @usableFromInline
  mutating func clientsWithCommands() -> UInt64 {
    if !isAwake { wake() }
    var found: UInt64 = 0
    var left = open
    while left != 0 {
      let bit = left & (0 &- left)
      left &= left &- 1
      if !clients[bit.trailingZeroBitCount].end.isEmpty() { found |= bit }
    }
    return found
  }

  @usableFromInline
  mutating func take(_ place: Int) -> CommandSubmission? {
    do throws(CommandClosure) {
      guard
        let taken = try clients[place].end.take(reserved: clients[place].waitingCount)
      else { return nil }
      clients[place].allowRing()
      return taken
    } catch {
      close(place, breaking: error)
      return nil
    }
  }

  /// - Returns: nil where the command has been refused.
  @usableFromInline
  mutating func admit(_ submission: CommandSubmission, _ place: Int, _ now: UInt64) -> Admitted? {
    let instance = clients[place].instance
    let (status, credential) = credentials.admit(
      submission.credential, sequence: submission.sequence, instance: instance, now: now)
    guard status == .done else {
      refuse(submission, place, status)
      return nil
    }
    guard let number = CommandNumber(rawValue: submission.number) else {
      refuse(submission, place, .unknownCommand)
      return nil
    }
    return Admitted(
      submission: submission, number: number,
      caller: CommandCaller(instance: instance, uid: credential.uid), credential: credential,
      place: place, now: now)
  }

  @usableFromInline
  mutating func answer(_ command: Admitted, _ values: InlineArray<6, UInt64>) {
    answer(
      command.place,
      CommandCompletion(
        status: .done, number: command.submission.number, sequence: command.submission.sequence,
        values: values))
  }

  @usableFromInline
  mutating func refuse(_ submission: CommandSubmission, _ place: Int, _ status: CommandStatus) {
    answer(
      place,
      CommandCompletion(status: status, number: submission.number, sequence: submission.sequence))
  }

  private mutating func answer(_ place: Int, _ completion: CommandCompletion) {
    counters.count(completion.statusValue)
    clients[place].end.answer(completion)
  }

  @usableFromInline
  mutating func publish(_ place: Int) {
    if open & 1 << UInt64(place) != 0 { clients[place].end.publish() }
  }

  // MARK: what may take longer

  /// Notes a command that may take longer.
  /// - Returns: nil where too many of the client wait; it has been refused then.
  @usableFromInline
  mutating func begin(_ command: Admitted) -> CommandToken? {
    guard let noted = clients[command.place].wait(command.submission, command.credential) else {
      refuse(command.submission, command.place, .busy)
      return nil
    }
    return CommandToken(
      client: UInt16(command.place), place: UInt16(noted.place), generation: noted.generation)
  }

  @usableFromInline
  func text(of command: Admitted) -> String? {
    clients[command.place].end.text(of: command.submission)
  }

  /// What the service said at once.
  @usableFromInline
  mutating func finish(_ token: CommandToken, _ outcome: CommandOutcome) {
    if case .pending = outcome { return }
    let place = Int(token.client)
    guard let command = clients[place].finish(Int(token.place), generation: token.generation)
    else { return }
    answer(place, Self.completion(of: command, outcome))
  }

  private static func completion(
    of command: ServedClient.Waiting, _ outcome: CommandOutcome
  ) -> CommandCompletion {
    switch outcome {
    case .done(let values):
      CommandCompletion(
        status: .done, number: command.number, sequence: command.sequence, values: values)
    case .refused(let status):
      CommandCompletion(status: status, number: command.number, sequence: command.sequence)
    case .pending: preconditionFailure("a command cannot be completed as pending")
    }
  }

  /// What became of a command in the end, as the client was told.
  public enum Completed: Sendable, Equatable {
    /// As the service said.
    case delivered
    /// Its credential had been revoked, replaced or had expired meanwhile: the client was told so, and what was done has
    /// to be undone.
    case undo(CommandStatus)
    /// Nobody waits for it any more: what was done has to be undone.
    case gone
  }

  /// The slow part of a command is over. Its credential is judged again: only if it is still good does the command stand.
  /// - Parameter outcome: done or refused.
  @discardableResult
  public mutating func complete(_ token: CommandToken, _ outcome: CommandOutcome) -> Completed {
    let place = Int(token.client)
    guard place < Self.maximumClients, open & 1 << UInt64(place) != 0,
      let command = clients[place].finish(Int(token.place), generation: token.generation)
    else { return .gone }
    var result = Completed.delivered
    let status = credentials.judge(command.credential, now: Self.now)
    if status == .done {
      answer(place, Self.completion(of: command, outcome))
    } else {
      counters.undone += 1
      answer(place, Self.completion(of: command, .refused(status)))
      result = .undo(status)
    }
    clients[place].end.publish()
    return result
  }

  /// For tests: a client's rings begin here, before anything has gone through them.
  mutating func begin(_ instance: UInt32, at index: UInt32) {
    if let place = place(of: instance) { clients[place].end.begin(at: index) }
  }

  // MARK: sleep

  /// Says to all clients that the server is about to sleep.
  /// - Returns: whether it may: false where a command has come meanwhile. Then, and after sleep, ``turn(_:)`` is next.
  public mutating func prepareToSleep() -> Bool {
    isAwake = false
    var left = open
    while left != 0 {
      clients[left.trailingZeroBitCount].end.announceSleep()
      left &= left &- 1
    }
    full_fence()
    left = open
    while left != 0 {
      if !clients[left.trailingZeroBitCount].end.isEmpty() { return false }
      left &= left &- 1
    }
    return true
  }

  private mutating func wake() {
    isAwake = true
    var left = open
    while left != 0 {
      clients[left.trailingZeroBitCount].end.awake()
      left &= left &- 1
    }
    var events = InlineArray<64, epoll_event>(repeating: epoll_event())
    var span = events.mutableSpan
    let count = span.withUnsafeMutableBufferPointer {
      epoll_wait(descriptor, $0.baseAddress, 64, 0)
    }
    if count <= 0 { return }
    for index in 0..<Int(count) { answerDoorbell(Int(truncatingIfNeeded: events[index].data.u64)) }
  }

  private mutating func answerDoorbell(_ place: Int) {
    guard open & 1 << UInt64(place) != 0 else { return }
    switch clients[place].end.answerDoorbell() {
    case .silent: break
    case .gone: close(place, breaking: .gone)
    case .rung: if !clients[place].noteRing() { close(place, breaking: .needlessRings) }
    }
  }

  /// CLOCK_MONOTONIC, in nanoseconds.
  @usableFromInline static var now: UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }
}
