import Channel

/// One client of a server: its end of the rings, and the commands of it that take longer.
struct ServedClient: ~Copyable {
  let instance: UInt32
  var end: CommandServerEnd
  /// How often the doorbell may still be rung: once for each command, and some more.
  private var ringsAllowed = Self.ringLimit
  /// Set when the client has broken the rules: it is served no more.
  var closure: CommandClosure?
  private(set) var waitingCount = 0
  private var waiting: [Waiting]

  /// A command that takes longer.
  struct Waiting {
    var isUsed = false
    var generation: UInt32
    var number: UInt32 = 0
    var sequence: UInt64 = 0
    var credential = CredentialCache.Reference.none
  }

  /// Commands of one client that may wait at once.
  static let waitingLimit = 16
  /// Rings of its doorbell that a client may make without a command.
  static let ringLimit = 64

  /// - Parameter generation: of the client's tokens; no earlier client in its place has had it.
  init(instance: UInt32, end: consuming CommandServerEnd, generation: UInt32) {
    self.instance = instance
    self.end = end
    waiting = Array(repeating: Waiting(generation: generation), count: Self.waitingLimit)
  }

  mutating func allowRing() { if ringsAllowed < Self.ringLimit { ringsAllowed += 1 } }

  /// - Returns: whether the doorbell has been rung no more often than it may.
  mutating func noteRing() -> Bool {
    ringsAllowed -= 1
    return ringsAllowed >= 0
  }

  /// Notes a command before it is begun.
  /// - Returns: its place and generation; nil where too many wait.
  mutating func wait(
    _ submission: CommandSubmission, _ credential: CredentialCache.Reference
  ) -> (place: Int, generation: UInt32)? {
    guard let place = waiting.firstIndex(where: { !$0.isUsed }) else { return nil }
    waiting[place].isUsed = true
    waiting[place].generation &+= 1
    waiting[place].number = submission.number
    waiting[place].sequence = submission.sequence
    waiting[place].credential = credential
    waitingCount += 1
    return (place, waiting[place].generation)
  }

  /// - Returns: the command of a token, which waits no more; nil where there is none.
  mutating func finish(_ place: Int, generation: UInt32) -> Waiting? {
    guard waiting.indices.contains(place), waiting[place].isUsed,
      waiting[place].generation == generation
    else { return nil }
    waiting[place].isUsed = false
    waitingCount -= 1
    return waiting[place]
  }

  /// Generations that this client's tokens cannot have had.
  var nextGeneration: UInt32 { (waiting.map(\.generation).max() ?? 0) &+ 1 }
}
