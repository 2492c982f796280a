import CLinux

/// The server's end of one command channel. Nothing that the client writes is believed: indices are checked, each entry
/// is copied once. One thread.
public struct CommandServerEnd: ~Copyable, Sendable {
  private let memory: CommandMemory
  private let doorbell: CommandDoorbell
  private let mask: UInt32
  /// Of the submission ring: what is taken next, and how far the client has come as far as is known.
  private(set) var taken: UInt32 = 0
  private var submitted: UInt32 = 0
  /// Of the completion ring: what has been written, what the client has been told of, and how far it has read.
  private(set) var written: UInt32 = 0
  private var published: UInt32 = 0
  private var read: UInt32 = 0

  public init(_ memory: consuming CommandMemory, doorbell: consuming CommandDoorbell) {
    mask = UInt32(memory.layout.entries - 1)
    self.memory = memory
    self.doorbell = doorbell
  }

  public var doorbellDescriptor: Int32 { doorbell.descriptor }

  /// Whether the client has submitted anything more.
  public func isEmpty() -> Bool {
    if submitted != taken { return false }
    // Both lines are on the way from the client's cache at once: 631 ns a round trip instead of 841.
    prefetch(
      memory.address(CommandLayout.submissions + Int(taken & mask) * CommandLayout.entryBytes))
    return acquire_load32(memory.address(CommandLayout.submissionProducer)) == taken
  }

  /// The next command, copied.
  /// - Parameter reserved: commands taken before whose completions are still to be written: they keep their room.
  /// - Returns: nil where there is none.
  /// - Throws: how the client broke the rules. One that keeps them always has room for its completions.
  public mutating func take(reserved: Int) throws(CommandClosure) -> CommandSubmission? {
    if submitted == taken {
      let claimed = acquire_load32(memory.address(CommandLayout.submissionProducer))
      if claimed == taken { return nil }
      if claimed &- taken > mask &+ 1 { throw .indexJump }
      submitted = claimed
    }
    if Int(mask &+ 1 &- (written &- read)) <= reserved { try lookWhatWasRead(reserved) }
    let entry = CommandLayout.submissions + Int(taken & mask) * CommandLayout.entryBytes
    let submission = CommandSubmission(reading: memory.address(entry))
    taken &+= 1
    return submission
  }

  /// Only when there seems to be no room: the client's index is on a cache line that it has just written.
  private mutating func lookWhatWasRead(_ reserved: Int) throws(CommandClosure) {
    let claimed = acquire_load32(memory.address(CommandLayout.completionConsumer))
    if claimed &- read > published &- read { throw .indexJump }
    read = claimed
    if Int(mask &+ 1 &- (written &- read)) <= reserved { throw .overrun }
  }

  /// A command's text, each byte of it read once.
  /// - Returns: nil where it has none, lies outside the text part, or is not made of visible ASCII characters.
  public func text(of submission: CommandSubmission) -> String? {
    let length = Int(submission.length)
    var bytes: [UInt8] = []
    switch submission.form {
    case CommandSubmission.Form.inlineText where length <= CommandSubmission.inlineBytes:
      for index in 0..<length {
        let word = submission.operands[index >> 3]
        bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(8 * (index & 7))))
      }
    case CommandSubmission.Form.placedText where length <= CommandLayout.textBytes:
      let end = memory.layout.entries * CommandLayout.textBytes - length
      guard let offset = Int(exactly: submission.operands[0]), offset <= end else { return nil }
      let text = memory.address(memory.layout.texts + offset)
      for index in 0..<length { bytes.append(volatile_load8(text + index)) }
    default: return nil
    }
    guard !bytes.isEmpty, bytes.allSatisfy({ (33...126).contains($0) }) else { return nil }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Writes a completion. There is room: ``take(reserved:)`` has kept it.
  public mutating func answer(_ completion: CommandCompletion) {
    let entry = memory.layout.completions + Int(written & mask) * CommandLayout.entryBytes
    completion.write(to: memory.address(entry))
    written &+= 1
  }

  /// Shows the client what was taken and written, and wakes it if it sleeps.
  public mutating func publish() {
    release_store32(memory.address(CommandLayout.submissionConsumer), taken)
    if written == published { return }
    published = written
    release_store32(memory.address(CommandLayout.completionProducer), written)
    full_fence()
    let sleeps = memory.address(CommandLayout.clientSleeps)
    if relaxed_load32(sleeps) != 0 {
      relaxed_store32(sleeps, 0)
      doorbell.ring()
    }
  }

  /// Says that the server is about to sleep. Behind a full fence it looks once more whether the ring ``isEmpty()``.
  public func announceSleep() { relaxed_store32(memory.address(CommandLayout.serverSleeps), 1) }
  public func awake() { relaxed_store32(memory.address(CommandLayout.serverSleeps), 0) }
  public func answerDoorbell() -> CommandDoorbell.State { doorbell.answer() }

  /// Tells the client why nothing more comes, and wakes it.
  public func close(_ closure: CommandClosure) {
    release_store32(memory.address(CommandLayout.closure), closure.rawValue)
    doorbell.ring()
  }
}

extension CommandServerEnd {
  /// For tests: both rings begin here, before anything has gone through them.
  package mutating func begin(at index: UInt32) {
    (taken, submitted, written, published, read) = (index, index, index, index, index)
    for word in [
      CommandLayout.submissionProducer, CommandLayout.submissionConsumer,
      CommandLayout.completionProducer, CommandLayout.completionConsumer,
    ] { release_store32(memory.address(word), index) }
  }
}
