/// Where everything lies in a command channel's memory. Both ends compute it from the number of entries; what the
/// memory's header says is compared once. Version 1. All numbers are little-endian, offsets in bytes.
///
///     0      header: magic "MRTC", version, entries, bytes of a text place (32 bits each)
///     128    submission ring, producer's index (the client writes it)
///     256    submission ring, consumer's index (the server)
///     384    completion ring, producer's index (the server)
///     512    completion ring, consumer's index (the client)
///     640    not 0 while the server sleeps, or is about to
///     768    not 0 while the client sleeps, or is about to
///     896    why the server has closed the channel (``CommandClosure``), 0 while it is open
///     4096   submission ring: entries of 64 bytes (``CommandSubmission``)
///     then   completion ring: as many entries of 64 bytes (``CommandCompletion``)
///     then   a text place of 256 bytes for each entry
///
/// Indices are 32 bits, run free, begin at 0, and each lies in a pair of cache lines of its own. An entry's place is its
/// index modulo the number of entries.
///
/// A producer writes entries, stores its index (release), then, behind a full fence, reads the peer's sleep word; where
/// that is not 0 it stores 0 there and writes 8 bytes to its doorbell. Whoever wants to sleep stores 1 in its own word,
/// and behind a full fence looks at its ring once more. No client has more commands on the way than there are entries.
public struct CommandLayout: Sendable, Equatable {
  public static let magic: UInt32 = 0x4354_524d  // "MRTC"
  public static let version: UInt32 = 1
  /// Bytes of an entry of either ring.
  public static let entryBytes = 64
  /// Bytes of the longest text of a command.
  public static let textBytes = 256

  /// Entries of each ring: a power of two.
  public let entries: Int

  /// - Returns: nil where there cannot be so many: 64 to 1024, a power of two.
  public init?(entries: Int) {
    guard (64...1024).contains(entries), entries & (entries - 1) == 0 else { return nil }
    self.entries = entries
  }

  private init(checked entries: Int) { self.entries = entries }

  /// 64 entries: what a supervisor gives its instances.
  public static let standard = CommandLayout(checked: 64)

  public var byteCount: Int { texts + entries * Self.textBytes }

  static let submissionProducer = 128
  static let submissionConsumer = 256
  static let completionProducer = 384
  static let completionConsumer = 512
  static let serverSleeps = 640
  static let clientSleeps = 768
  static let closure = 896
  static let submissions = 4096
  var completions: Int { Self.submissions + entries * Self.entryBytes }
  var texts: Int { completions + entries * Self.entryBytes }
}

/// What a command asks for. Raw values cross process boundaries: they do not change.
@frozen
public enum CommandNumber: UInt32, BitwiseCopyable, Sendable, CaseIterable {
  /// Operand 0: a queue, or all ones for all. Values: ``InstanceStatistics``.
  case statistics = 1
  /// Values: ``LinkState``.
  case linkState = 2
  /// Values: ``CommandTime``.
  case time = 3
  /// Text: a claim. The instance gets what it says.
  case join = 4
  /// Text: a claim that it has.
  case leave = 5
  /// Operands 0 and 1: a memory handle's id. Values 0 and 1: where its bytes begin for the instance's descriptors, and
  /// how many they are.
  case registerMemory = 6
  /// Operands 0 and 1: a memory handle's id.
  case unregisterMemory = 7
  /// Operand 0: bytes that the arena shall have more. Value 0: bytes that it has then.
  case grow = 8
  /// Operand 0: bytes that the arena shall have less. Value 0: bytes that it has then.
  case shrink = 9
}

/// What became of a command. Raw values cross process boundaries: they do not change.
@frozen
public enum CommandStatus: UInt32, BitwiseCopyable, Sendable, CaseIterable {
  case done = 0
  /// No such command.
  case unknownCommand = 1
  /// Its operands or its text cannot be.
  case malformed = 2
  /// No credential has this id.
  case wrongCredential = 3
  /// The credential was replaced by another, or its instance has ended.
  case staleCredential = 4
  /// The credential was given to another channel.
  case foreignCredential = 5
  case revokedCredential = 6
  case expiredCredential = 7
  /// The sequence number is not above that of the credential's last command.
  case replayed = 8
  /// The command exists, and this server does not do it.
  case unsupported = 9
  /// The policy does not allow it to this instance.
  case denied = 10
  /// Somebody else has what is asked for.
  case conflict = 11
  /// There is no such claim, handle or queue.
  case notFound = 12
  /// There is not as much left.
  case exhausted = 13
  /// Too many commands of this client wait already.
  case busy = 14
  /// It was tried, and something failed that is not the client's fault.
  case failed = 15

  /// As counters name it.
  public var name: String {
    switch self {
    case .done: "done"
    case .unknownCommand: "unknown_command"
    case .malformed: "malformed"
    case .wrongCredential: "wrong_credential"
    case .staleCredential: "stale_credential"
    case .foreignCredential: "foreign_credential"
    case .revokedCredential: "revoked_credential"
    case .expiredCredential: "expired_credential"
    case .replayed: "replayed"
    case .unsupported: "unsupported"
    case .denied: "denied"
    case .conflict: "conflict"
    case .notFound: "not_found"
    case .exhausted: "exhausted"
    case .busy: "busy"
    case .failed: "failed"
    }
  }
}

/// Why a server has closed a command channel. Raw values cross process boundaries: they do not change.
public enum CommandClosure: UInt32, Error, Sendable, CaseIterable {
  /// An index went backwards, or further than there are entries.
  case indexJump = 1
  /// The doorbell was rung more often than commands came.
  case needlessRings = 2
  /// The other end of the doorbell is closed.
  case gone = 3
  /// The server has ended the instance.
  case ended = 4
  /// More commands were on the way than there are entries.
  case overrun = 5

  /// For messages: words joined by underscores.
  public var name: String {
    switch self {
    case .indexJump: "an_index_of_a_command_ring_jumped"
    case .needlessRings: "the_command_doorbell_was_rung_without_commands"
    case .gone: "the_command_doorbell_was_closed"
    case .ended: "ended"
    case .overrun: "more_commands_on_the_way_than_entries"
    }
  }
}
