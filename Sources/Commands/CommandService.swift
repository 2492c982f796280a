import Channel

/// Who has sent a command. Comes from the server's own records, never from the client.
@frozen
public struct CommandCaller: BitwiseCopyable, Sendable, Equatable {
  public var instance: UInt32
  public var uid: UInt32

  @inlinable
  public init(instance: UInt32, uid: UInt32) {
    self.instance = instance
    self.uid = uid
  }
}

/// What a service makes of a command.
@frozen
public enum CommandOutcome: Sendable {
  /// It is done: the values that its completion carries.
  case done(InlineArray<6, UInt64>)
  case refused(CommandStatus)
  /// It takes longer: the service will say what became of it (``CommandServer/complete(_:_:)``).
  case pending

  /// Done, with nothing to tell.
  @inlinable public static var done: CommandOutcome { .done([0, 0, 0, 0, 0, 0]) }
}

/// Names a command that takes longer. Not valid any more once the command is completed, or its client gone.
@frozen
public struct CommandToken: BitwiseCopyable, Hashable, Sendable {
  @usableFromInline var client: UInt16
  @usableFromInline var place: UInt16
  @usableFromInline var generation: UInt32

  @inlinable
  init(client: UInt16, place: UInt16, generation: UInt32) {
    self.client = client
    self.place = place
    self.generation = generation
  }
}

/// Carries out what clients ask for. The caller has been authenticated; what it asks for is still to be judged.
///
/// The first three are answered at once, in the steady state, and should allocate nothing. The others may take longer:
/// they may return ``CommandOutcome/pending`` and keep the token.
public protocol CommandService: ~Copyable {
  /// - Parameter queue: nil for the sum of all.
  /// - Returns: nil where there is no such queue.
  mutating func statistics(of caller: CommandCaller, queue: UInt64?) -> InstanceStatistics?
  mutating func linkState(for caller: CommandCaller) -> LinkState
  /// - Parameter monotonic: when the command was taken.
  mutating func time(for caller: CommandCaller, monotonic: UInt64) -> CommandTime

  /// - Parameter claim: visible ASCII characters, 256 at most, not looked at further.
  mutating func join(
    _ claim: String, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome
  mutating func leave(
    _ claim: String, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome
  /// Done with the values of a ``MemoryRegistration``.
  mutating func register(
    _ handle: MemoryHandleID, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome
  mutating func unregister(
    _ handle: MemoryHandleID, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome
  /// Done with the arena's bytes as the first value.
  mutating func grow(
    by byteCount: UInt64, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome
  mutating func shrink(
    by byteCount: UInt64, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome
}

/// What a service does not do.
extension CommandService where Self: ~Copyable {
  public mutating func join(
    _ claim: String, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome { .refused(.unsupported) }
  public mutating func leave(
    _ claim: String, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome { .refused(.unsupported) }
  public mutating func register(
    _ handle: MemoryHandleID, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome { .refused(.unsupported) }
  public mutating func unregister(
    _ handle: MemoryHandleID, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome { .refused(.unsupported) }
  public mutating func grow(
    by byteCount: UInt64, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome { .refused(.unsupported) }
  public mutating func shrink(
    by byteCount: UInt64, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome { .refused(.unsupported) }
}
