import CLinux
import Glibc

/// An instance's end of its command channel: commands go without waiting, several at once, and completions come in
/// whatever order the server has them. One thread.
public struct CommandClient: ~Copyable, @unchecked Sendable {
  private let memory: CommandMemory
  private let doorbell: CommandDoorbell
  private let mask: UInt32
  /// Goes with each command; the server may give another one.
  public var credential: CredentialID
  /// Turns that ``call(_:withinMilliseconds:)`` looks for an answer before it sleeps; `Int.max` for one that never does.
  public var spins = 2000
  private(set) var submitted: UInt32 = 0
  private var taken: UInt32 = 0
  private var answered: UInt32 = 0
  private var sequence: UInt64
  /// Commands that have no completion yet.
  public private(set) var onTheWay = 0
  // Invariant: room for as many completions as there are entries; `waiting` of them, from `firstWaiting` on, came while
  // another was waited for. Together with `onTheWay` they are never more than there are entries.
  private let aside: UnsafeMutablePointer<CommandCompletion>
  private var firstWaiting = 0
  private var waiting = 0

  /// - Parameters:
  ///   - doorbell: the client's end.
  ///   - lastSequence: of this credential's last command, where it has been used before.
  public init(
    _ memory: consuming CommandMemory, doorbell: consuming CommandDoorbell,
    credential: CredentialID, lastSequence: UInt64 = 0
  ) {
    let entries = memory.layout.entries
    aside = .allocate(capacity: entries)
    aside.initialize(
      repeating: CommandCompletion(status: .done, number: 0, sequence: 0), count: entries)
    mask = UInt32(entries - 1)
    self.memory = memory
    self.doorbell = doorbell
    self.credential = credential
    sequence = lastSequence
  }

  deinit { aside.deallocate() }

  /// Readable once the server has woken a client that announced its sleep.
  public var descriptor: Int32 { doorbell.descriptor }

  /// Sends a command and does not wait.
  /// - Returns: its sequence number, by which its completion is known.
  /// - Throws: ``CommandError/full``.
  public mutating func submit(_ command: CommandSubmission) throws(CommandError) -> UInt64 {
    guard onTheWay + waiting <= Int(mask) else { throw .full }
    var command = command
    sequence += 1
    command.sequence = sequence
    command.credential = credential
    let place = Int(submitted & mask)
    command.write(
      to: memory.address(CommandLayout.submissions + place * CommandLayout.entryBytes))
    submitted &+= 1
    onTheWay += 1
    release_store32(memory.address(CommandLayout.submissionProducer), submitted)
    full_fence()
    let sleeps = memory.address(CommandLayout.serverSleeps)
    if relaxed_load32(sleeps) != 0 {
      relaxed_store32(sleeps, 0)
      doorbell.ring()
    }
    return sequence
  }

  /// Sends a command with a text: in its entry where it fits, else in the place that belongs to that entry.
  /// - Throws: ``CommandError/full``, ``CommandError/textTooLong(byteCount:)``.
  public mutating func submit(
    _ number: CommandNumber, text: String
  ) throws(CommandError) -> UInt64 {
    let bytes = Array(text.utf8)
    guard bytes.count <= CommandLayout.textBytes else {
      throw .textTooLong(byteCount: bytes.count)
    }
    guard onTheWay + waiting <= Int(mask) else { throw .full }
    var command = CommandSubmission(number)
    command.length = UInt16(bytes.count)
    if bytes.count <= CommandSubmission.inlineBytes {
      command.form = CommandSubmission.Form.inlineText
      for (index, byte) in bytes.enumerated() {
        command.operands[index >> 3] |= UInt64(byte) << UInt64(8 * (index & 7))
      }
    } else {
      command.form = CommandSubmission.Form.placedText
      let offset = Int(submitted & mask) * CommandLayout.textBytes
      command.operands[0] = UInt64(offset)
      let place = memory.address(memory.layout.texts + offset)
      for (index, byte) in bytes.enumerated() { volatile_store8(place + index, byte) }
    }
    return try submit(command)
  }

  /// The next completion, if one has come.
  /// - Throws: ``CommandError/brokenServer``.
  public mutating func poll() throws(CommandError) -> CommandCompletion? {
    if waiting == 0 { return try take() }
    let completion = aside[firstWaiting]
    firstWaiting = (firstWaiting + 1) & Int(mask)
    waiting -= 1
    return completion
  }

  private mutating func take() throws(CommandError) -> CommandCompletion? {
    if answered == taken {
      // As the server does.
      prefetch(
        memory.address(memory.layout.completions + Int(taken & mask) * CommandLayout.entryBytes))
      let claimed = acquire_load32(memory.address(CommandLayout.completionProducer))
      if claimed == taken { return nil }
      answered = claimed
    }
    guard answered &- taken <= mask &+ 1, onTheWay > 0 else { throw .brokenServer }
    let entry = memory.layout.completions + Int(taken & mask) * CommandLayout.entryBytes
    let completion = CommandCompletion(reading: memory.address(entry))
    taken &+= 1
    onTheWay -= 1
    release_store32(memory.address(CommandLayout.completionConsumer), taken)
    return completion
  }

  /// Why the server has closed the channel; nil while it is open.
  public var closure: CommandClosure? {
    let word = acquire_load32(memory.address(CommandLayout.closure))
    return word == 0 ? nil : CommandClosure(rawValue: word) ?? .ended
  }

  /// Says that this end is about to sleep on its descriptor.
  /// - Returns: whether it may: false where a completion has come meanwhile.
  public mutating func prepareToSleep() -> Bool {
    relaxed_store32(memory.address(CommandLayout.clientSleeps), 1)
    full_fence()
    return waiting == 0 && answered == taken
      && acquire_load32(memory.address(CommandLayout.completionProducer)) == taken
  }

  /// After sleep: takes the ring of the doorbell.
  /// - Returns: false where the server is gone.
  @discardableResult
  public mutating func awake() -> Bool {
    relaxed_store32(memory.address(CommandLayout.clientSleeps), 0)
    return doorbell.answer() != .gone
  }

  /// Waits for the completion of one command: looks for it for a while, then sleeps. Others that come are set aside for
  /// ``poll()``.
  /// - Throws: ``CommandError`` but for ``CommandError/full`` and refusals.
  public mutating func completion(
    of sequence: UInt64, withinMilliseconds limit: Int = 5000
  ) throws(CommandError) -> CommandCompletion {
    var turns = 0
    var deadline: UInt64 = 0
    while true {
      while let completion = try take() {
        if completion.sequence == sequence { return completion }
        aside[(firstWaiting + waiting) & Int(mask)] = completion
        waiting += 1
      }
      turns &+= 1
      if turns & 1023 == 0, let closure { throw .closed(closure) }
      if turns < spins {
        cpu_pause()
        continue
      }
      let now = monotonic_milliseconds()
      if deadline == 0 { deadline = now + UInt64(limit) }
      guard now < deadline else { throw .noAnswer(milliseconds: limit) }
      try sleep(milliseconds: Int32(deadline - now))
    }
  }

  private mutating func sleep(milliseconds: Int32) throws(CommandError) {
    relaxed_store32(memory.address(CommandLayout.clientSleeps), 1)
    full_fence()
    if acquire_load32(memory.address(CommandLayout.completionProducer)) == taken && closure == nil {
      doorbell.wait(milliseconds: milliseconds)
    }
    let isServed = awake()
    if let closure { throw .closed(closure) }
    if !isServed { throw .closed(.gone) }
  }
}

extension CommandClient {
  /// For tests: both rings begin here, before anything has gone through them.
  mutating func begin(at index: UInt32) { (submitted, taken, answered) = (index, index, index) }
}
