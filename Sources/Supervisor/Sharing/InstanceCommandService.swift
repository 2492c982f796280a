import CLinux
import Channel
import Commands
import Glibc
import Host

/// Answers instances' commands: what is asked for often at once, from the driver host's counter page and a few values.
/// Claims are handed on, since the host has to agree.
struct InstanceCommandService: CommandService, ~Copyable {
  private let page: CounterPage
  private let places: InstanceCounterPlaces
  var link: LinkState
  /// What has been asked for and not been begun.
  var claims: [ClaimCommand] = []

  /// Sizes that have been asked for and not been begun.
  var moves: [MoveCommand] = []

  /// Memory that is to be registered or let go of, and has not been begun.
  var registrations: [RegistrationCommand] = []

  /// An instance that wants to send from an application's memory, or does no longer.
  struct RegistrationCommand {
    var isRegistration: Bool
    var handle: MemoryHandleID
    var caller: CommandCaller
    var token: CommandToken
  }

  /// An instance that wants more memory, or is willing to have less.
  struct MoveCommand {
    var isGrowth: Bool
    var byteCount: UInt64
    var caller: CommandCaller
    var token: CommandToken
  }

  /// An instance that wants a claim, or wants to be without one.
  struct ClaimCommand {
    var word: Word
    /// As it came.
    var claim: String
    var caller: CommandCaller
    var token: CommandToken

    /// What the host is told.
    enum Word: String {
      case claim, unclaim
    }
  }

  init(_ page: consuming CounterPage, _ places: InstanceCounterPlaces, link: LinkState) {
    self.page = page
    self.places = places
    self.link = link
  }

  /// There are counters for all queues together only.
  mutating func statistics(of caller: CommandCaller, queue: UInt64?) -> InstanceStatistics? {
    queue == nil ? places.statistics(of: Int(caller.instance & 0x3f), in: page) : nil
  }

  func statistics(of slot: Int) -> InstanceStatistics { places.statistics(of: slot, in: page) }

  mutating func linkState(for caller: CommandCaller) -> LinkState { link }

  mutating func time(for caller: CommandCaller, monotonic: UInt64) -> CommandTime {
    CommandTime(monotonic: monotonic, realtime: clock_nanoseconds(CLOCK_REALTIME))
  }

  mutating func join(
    _ claim: String, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    claims.append(ClaimCommand(word: .claim, claim: claim, caller: caller, token: token))
    return .pending
  }

  mutating func leave(
    _ claim: String, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    claims.append(ClaimCommand(word: .unclaim, claim: claim, caller: caller, token: token))
    return .pending
  }

  mutating func register(
    _ handle: MemoryHandleID, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    registrations.append(
      RegistrationCommand(isRegistration: true, handle: handle, caller: caller, token: token))
    return .pending
  }

  mutating func unregister(
    _ handle: MemoryHandleID, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    registrations.append(
      RegistrationCommand(isRegistration: false, handle: handle, caller: caller, token: token))
    return .pending
  }

  mutating func grow(
    by byteCount: UInt64, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    moves.append(MoveCommand(isGrowth: true, byteCount: byteCount, caller: caller, token: token))
    return .pending
  }

  mutating func shrink(
    by byteCount: UInt64, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    moves.append(MoveCommand(isGrowth: false, byteCount: byteCount, caller: caller, token: token))
    return .pending
  }
}
