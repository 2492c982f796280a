import CLinux
import Channel

/// What a turn does: take commands, judge them, have them carried out, answer.
extension CommandServer {
  /// Takes and answers up to ``burst`` commands of each client.
  /// - Returns: whether there were any.
  @inlinable
  public mutating func turn<Service: CommandService & ~Copyable>(_ service: inout Service) -> Bool {
    var left = clientsWithCommands()
    if left == 0 { return false }
    let now = monotonic_nanoseconds()
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

  @inlinable @inline(never)
  mutating func begun<Service: CommandService & ~Copyable>(
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
      if !client(bit.trailingZeroBitCount).pointee.end.isEmpty() { found |= bit }
    }
    return found
  }

  @usableFromInline
  mutating func take(_ place: Int) -> CommandSubmission? {
    do throws(CommandClosure) {
      guard
        let taken = try client(place).pointee.end.take(reserved: clients[place].waitingCount)
      else { return nil }
      client(place).pointee.allowRing()
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
    client(place).pointee.end.answer(completion)
  }

  @usableFromInline
  mutating func publish(_ place: Int) {
    if open & 1 << UInt64(place) != 0 { client(place).pointee.end.publish() }
  }
}

/// Commands that may take longer.
extension CommandServer {
  /// Notes a command that may take longer.
  /// - Returns: nil where too many of the client wait; it has been refused then.
  @usableFromInline
  mutating func begin(_ command: Admitted) -> CommandToken? {
    guard let noted = client(command.place).pointee.wait(command.submission, command.credential)
    else {
      refuse(command.submission, command.place, .busy)
      return nil
    }
    return CommandToken(
      client: UInt16(command.place), place: UInt16(noted.place), generation: noted.generation)
  }

  @usableFromInline
  mutating func text(of command: Admitted) -> String? {
    client(command.place).pointee.end.text(of: command.submission)
  }

  /// What the service said at once.
  @usableFromInline
  mutating func finish(_ token: CommandToken, _ outcome: CommandOutcome) {
    if case .pending = outcome { return }
    let place = Int(token.client)
    guard let command = client(place).pointee.finish(Int(token.place), generation: token.generation)
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
      let command = client(place).pointee.finish(Int(token.place), generation: token.generation)
    else { return .gone }
    var result = Completed.delivered
    let status = credentials.judge(command.credential, now: monotonic_nanoseconds())
    if status == .done {
      answer(place, Self.completion(of: command, outcome))
    } else {
      counters.undone += 1
      answer(place, Self.completion(of: command, .refused(status)))
      result = .undo(status)
    }
    client(place).pointee.end.publish()
    return result
  }
}
