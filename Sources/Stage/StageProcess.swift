import CLinux
import Channel
import Confinement
import Glibc
import Memory

/// What a stage's process is given: its memory, its channel and the connection to its supervisor. One thread.
public final class StageProcess {
  let arguments: StageArguments
  let arena: Arena
  let channel: ChannelMemory
  @usableFromInline let counters: CounterPage
  /// What the stage is configured with.
  @usableFromInline let configuration: String
  let control: Int32
  /// -1 once nobody is left who could ring.
  private var doorbell: Int32
  // Invariant: `queues` initialised ends until deinit; their memory is `channel`.
  @usableFromInline let ends: UnsafeMutablePointer<InstanceEnd>
  @usableFromInline let queues: Int
  @usableFromInline let endWord: UnsafeMutableRawPointer

  /// The most bytes that a configuration has.
  static let maximumConfiguration = 1 << 20

  /// Maps what comes with the descriptors, which are the process's from now on.
  /// - Parameters:
  ///   - confining: gives up all rights before anything of it is looked at.
  ///   - descriptor: the number of each; a place behind ``StageDescriptor/firstHostDoorbell`` for each further queue.
  init(
    _ arguments: StageArguments, confining: Bool = false,
    _ descriptor: (StageDescriptor, Int32) -> Int32 = { $0.rawValue + $1 }
  ) throws(StageError) {
    self.arguments = arguments
    control = descriptor(.control, 0)
    doorbell = descriptor(.doorbell, 0)
    if confining {
      _ = try Self.asStageError { () throws(ConfinementError) in
        try Confinement.enter(reportingTo: descriptor(.control, 0))
      }
    }
    guard let layout = ChannelLayout(queues: arguments.queues, slots: arguments.slots) else {
      throw StageError("no channel has \(arguments.queues) queues of \(arguments.slots) slots")
    }
    arena = try Self.asStageError { () throws(MemoryError) in
      try Arena(adopting: descriptor(.arena, 0), byteCount: arguments.arenaBytes)
    }
    channel = try Self.asStageError { () throws(ChannelError) in
      try ChannelMemory(adopting: descriptor(.channel, 0), layout: layout)
    }
    counters = try Self.asStageError { () throws(MemoryError) in
      try CounterPage(
        adopting: descriptor(.counters, 0), capacity: StageDescriptor.counterCapacity,
        writable: true)
    }
    configuration = try Self.readConfiguration(descriptor(.configuration, 0))
    endWord = channel.endWord
    queues = arguments.queues
    ends = .allocate(capacity: queues)
    for queue in 0..<queues {
      (ends + queue).initialize(
        to: InstanceEnd(
          channel, queue: queue, hostDoorbell: descriptor(.firstHostDoorbell, Int32(queue))))
    }
  }

  deinit {
    ends.deinitialize(count: queues)
    ends.deallocate()
    if doorbell >= 0 { Glibc.close(doorbell) }
  }

  /// Bytes up to the first 0, or all: memory comes in whole pages.
  private static func readConfiguration(_ descriptor: Int32) throws(StageError) -> String {
    var text = [UInt8](repeating: 0, count: maximumConfiguration)
    let count = pread(descriptor, &text, text.count, 0)
    guard count >= 0 else {
      throw StageError("its configuration cannot be read: \(String(cString: strerror(errno)))")
    }
    Glibc.close(descriptor)
    return String(decoding: text[..<count].prefix { $0 != 0 }, as: UTF8.self)
  }

  static func asStageError<R: ~Copyable, E: Error>(
    _ body: () throws(E) -> R
  ) throws(StageError) -> R {
    do throws(E) {
      return try body()
    } catch let error as ConfinementError {
      throw StageError(
        "cannot confine the stage (\(error.step)): \(String(cString: strerror(error.errno)))")
    } catch {
      throw StageError("\(error)")
    }
  }

  // MARK: Confinement

  private var confined: ConfinedStage { ConfinedStage(control: control, doorbell: doorbell) }

  /// Before the author's code.
  func close() throws(StageError) {
    if !arguments.isConfined { return }
    try Self.asStageError { () throws(ConfinementError) in try Confinement.close(confined) }
  }

  /// Before the first packet.
  @usableFromInline
  func closeLoop() throws(StageError) {
    if !arguments.isConfined { return }
    try Self.asStageError { () throws(ConfinementError) in try Confinement.closeLoop(confined) }
  }

  // MARK: The supervisor

  @usableFromInline
  func say(_ text: String) { ControlMessage.send(text, to: control) }

  /// - Returns: false where the stage is to end.
  @usableFromInline
  func hear() -> Bool {
    // Bounded: it is heard again soon.
    for _ in 0..<16 {
      switch ControlMessage.receive(from: control) {
      case .nothing: return true
      case .end: return false
      case .message(let message, let descriptors):
        for descriptor in descriptors { Glibc.close(descriptor) }
        if message.word == "stop" { return false }
      }
    }
    return true
  }

  @inlinable
  var isAskedToEnd: Bool { relaxed_load32(endWord) != 0 }

  @usableFromInline
  var mode: PollMode { arguments.mode }

  @usableFromInline
  var interface: StageInterface { arguments.interface }

  // MARK: Sleeping

  /// Sleeps where nothing has come in meanwhile.
  /// - Parameter nanoseconds: for so long at most.
  /// - Returns: false where the stage is to end.
  @usableFromInline
  func sleep(_ nanoseconds: UInt64) -> Bool {
    var maySleep = true
    for queue in 0..<queues where !ends[queue].prepareToSleep() { maySleep = false }
    defer { for queue in 0..<queues { ends[queue].doorbell.awake() } }
    if !maySleep { return true }
    var entries = [
      pollfd(fd: control, events: Int16(POLLIN), revents: 0),
      pollfd(fd: doorbell, events: Int16(POLLIN), revents: 0),
    ]
    guard linux_await_any(&entries, nfds_t(entries.count), nanoseconds) > 0 else { return true }
    if entries[1].revents != 0 { clearDoorbell() }
    return entries[0].revents == 0 || hear()
  }

  /// Takes what has been rung. Where nobody is left who could ring, only time and the supervisor wake the stage.
  private func clearDoorbell() {
    var rings = InlineArray<64, UInt64>(repeating: 0)
    if recv(doorbell, &rings, 512, Int32(MSG_DONTWAIT)) == 0 { doorbell = -1 }
  }
}
