import CLinux
import Channel
import Glibc
import Memory

/// A protocol stack on a channel. The loop (``InstanceLoop``) calls it; one thread. A program gets it with one line
/// (``InstalledStack``).
public protocol StackInstance: ~Copyable {
  /// Packets that have come, whole ones: the instance gives each piece's segment back, at once or
  /// later (``InstanceChannel/giveBack(_:queue:)``).
  mutating func receive(_ burst: inout Burst, queue: Int)

  /// The device has done with these packets, named by their tags.
  mutating func completed(_ burst: inout Burst)

  /// Everything else that is due: timers, sending, returning segments.
  /// - Returns: whether there was anything to do.
  mutating func service() throws(StackError) -> Bool

  /// The loop is about to sleep: a stack with threads of its own has them signal ``descriptor`` from now on.
  /// - Returns: false where there is something to do already.
  mutating func prepareToSleep() -> Bool

  /// Milliseconds until ``service()`` has something to do by itself.
  var nextDeadline: Int32 { get }

  /// A further descriptor that wakes the loop when it is readable; -1 for none.
  var descriptor: Int32 { get }

  /// The instance's task is done, with this exit code; nil while it goes on.
  var exitCode: Int32? { get }

  /// The transmit part has become larger: the arena has so many bytes from now on.
  mutating func memoryDidGrow(to byteCount: Int)

  /// The supervisor wants back what lies behind the arena's first `byteCount` bytes: nothing of it is to be taken into use
  /// any more. Called once a turn until it is free.
  /// - Returns: whether nobody has anything of it any more, the device neither.
  mutating func memoryWillShrink(to byteCount: Int) -> Bool

  /// Where the arena could end now, in bytes. Asked when the supervisor does not wait longer for the rest.
  var memoryEndInUse: Int { get }

  /// The arena has so many bytes from now on, no less than are in use. What was asked for beyond that stays.
  mutating func memoryDidShrink(to byteCount: Int)
}

/// A stack that never uses more than the first extent.
extension StackInstance where Self: ~Copyable {
  public mutating func memoryDidGrow(to byteCount: Int) {}
  public mutating func memoryWillShrink(to byteCount: Int) -> Bool { true }
  public var memoryEndInUse: Int { 0 }
  public mutating func memoryDidShrink(to byteCount: Int) {}
}

/// What holds for most stacks.
extension StackInstance where Self: ~Copyable {
  @inlinable public mutating func prepareToSleep() -> Bool { true }
  public var nextDeadline: Int32 { 1000 }
  public var descriptor: Int32 { -1 }
  public var exitCode: Int32? { nil }
}

/// The loop of a stack instance, compiled for each stack: polls its channel while there is work, then polls on or sleeps
/// until a doorbell, a timer or the end of its supervisor, as the mode says. While there is work it makes no system call
/// of its own: the supervisor asks for the end, or says that a message waits, by words in the channel.
public struct InstanceLoop<Stack: StackInstance & ~Copyable>: ~Copyable {
  @usableFromInline var stack: Stack
  @usableFromInline let channel: InstanceChannel
  @usableFromInline let mode: PollMode
  @usableFromInline var received = Burst(capacity: 256)
  @usableFromInline var completed = Burst(capacity: 256)
  /// Turns without work before the loop sleeps; nil where it never does.
  @usableFromInline let patience: Int?

  /// - Parameters:
  ///   - stack: the loop's from now on.
  ///   - channel: the one that the stack uses.
  ///   - mode: when it polls and when it sleeps.
  public init(stack: consuming Stack, channel: InstanceChannel, mode: PollMode) {
    self.stack = stack
    self.channel = channel
    self.mode = mode
    patience =
      switch mode {
      case .poll, .yield: nil
      case .adaptive: 200
      case .interrupt: 0
      }
  }

  /// Says to the supervisor that the instance is ready, and runs until the supervisor says stop or is gone, or the
  /// stack's task is done.
  /// - Returns: an exit code.
  /// - Throws: why the instance cannot go on.
  @inlinable
  public mutating func run() throws(StackError) -> Int32 {
    channel.environment.connection.send("ready")
    let code = try runUntilEnd()
    channel.environment.connection.send("bye")
    return code
  }

  @inlinable
  mutating func runUntilEnd() throws(StackError) -> Int32 {
    var idle = 0
    while !channel.isAskedToEnd {
      if channel.hasNews, try !channel.hearNews() { return 0 }
      if channel.environment.isMoving { try moveMemory() }
      if try turn() { idle = 0 } else { idle += 1 }
      if let code = stack.exitCode { return code }
      if idle == 0 { continue }
      if let patience, idle > patience {
        let mayGoOn = try sleep()
        channel.awake()
        if !mayGoOn { return 0 }
        idle = 0
      } else if mode == .yield, idle > PollMode.turnsBeforeYield {
        sched_yield()
      } else {
        cpu_pause()
      }
    }
    try channel.environment.checkEnd()
    return 0
  }

  @inlinable @inline(never)
  mutating func turn() throws(StackError) -> Bool {
    var worked = false
    for queue in 0..<channel.queues {
      do throws(ChannelError) {
        try channel.ends[queue].completion.pop(into: &completed)
        try channel.ends[queue].receive.pop(into: &received)
      } catch {
        throw StackError(brokenBy: error)
      }
      if !completed.isEmpty {
        stack.completed(&completed)
        completed.removeAll()
        worked = true
      }
      if !received.isEmpty {
        stack.receive(&received, queue: queue)
        received.removeAll()
        worked = true
      }
    }
    if try stack.service() { worked = true }
    if channel.flush() { worked = true }
    if channel.hasTooMany { throw StackError("the driver host has given the same segment twice") }
    if worked { channel.ring() }
    return worked
  }

  /// Sleeps where nothing has come in meanwhile.
  /// - Returns: false when the supervisor says stop or is gone.
  @usableFromInline
  mutating func sleep() throws(StackError) -> Bool {
    guard stack.prepareToSleep(), channel.prepareToSleep() else { return true }
    let doorbell = channel.environment.ownDoorbell
    var entries = [
      pollfd(fd: channel.environment.connection.descriptor, events: Int16(POLLIN), revents: 0),
      pollfd(fd: doorbell, events: Int16(POLLIN), revents: 0),
      pollfd(fd: stack.descriptor, events: Int16(POLLIN), revents: 0),
    ]
    guard poll(&entries, 3, max(1, stack.nextDeadline)) > 0 else { return true }
    if entries[0].revents != 0, try !channel.environment.hearNews() { return false }
    return entries[1].revents == 0 || channel.environment.clearDoorbell()
  }
}

/// All of an instance's channel ends. Shared by the loop and the stack, in one thread.
public final class InstanceChannel {
  // Invariant: `queues` initialised elements until deinit.
  /// One for each queue pair.
  public let ends: UnsafeMutablePointer<InstanceEnd>
  /// Queue pairs.
  public let queues: Int
  // Invariant: `queues` initialised elements until deinit.
  /// Segments on their way back; what a queue's free ring does not take waits here.
  @usableFromInline let returning: UnsafeMutablePointer<Burst>
  /// More segments of a queue have come than it has.
  @usableFromInline @exclusivity(unchecked) var hasTooMany = false
  /// What the instance was given.
  public let environment: InstanceEnvironment
  // Invariant: both stay mapped as long as the environment.
  @usableFromInline let endWord: UnsafeMutableRawPointer
  @usableFromInline let newsWord: UnsafeMutableRawPointer
  @usableFromInline @exclusivity(unchecked) var newsHeard: UInt32

  /// Makes the ends. Once for each environment: two would not know of each other.
  public init(_ environment: InstanceEnvironment) {
    self.environment = environment
    endWord = environment.channel.endWord
    newsWord = environment.channel.newsWord
    // What was said before the instance was there comes with the next look at the socket.
    newsHeard = 0
    queues = environment.queues
    ends = .allocate(capacity: queues)
    returning = .allocate(capacity: queues)
    // All segments that a queue has.
    let segments = max(1, environment.receiveBytes / queues / Descriptor.unit)
    for queue in 0..<queues {
      (returning + queue).initialize(to: Burst(capacity: segments))
      (ends + queue).initialize(
        to: InstanceEnd(
          environment.channel, queue: queue, hostDoorbell: environment.hostDoorbells[queue]))
    }
  }

  deinit {
    ends.deinitialize(count: queues)
    ends.deallocate()
    returning.deinitialize(count: queues)
    returning.deallocate()
  }

  /// The stack has done with a received piece: its segment goes back to the host with the end of the turn, or before.
  /// - Parameters:
  ///   - segment: by its first address, in units.
  ///   - queue: the one over which the piece came.
  @inlinable
  public func giveBack(_ segment: UInt32, queue: Int) {
    if returning[queue].room == 0 { ends[queue].free.push(&returning[queue]) }
    if returning[queue].room == 0 {
      hasTooMany = true
    } else {
      returning[queue].append(Descriptor(segment: segment))
    }
  }

  /// - Returns: whether any segment went back.
  @inlinable
  func flush() -> Bool {
    var moved = false
    for queue in 0..<queues where !returning[queue].isEmpty {
      let before = returning[queue].count
      ends[queue].free.push(&returning[queue])
      if returning[queue].count != before { moved = true }
    }
    return moved
  }

  /// Whether the supervisor wants the instance to end.
  @inlinable
  var isAskedToEnd: Bool { relaxed_load32(endWord) != 0 }
  /// Whether a message waits that is to be read at once.
  @inlinable
  var hasNews: Bool { acquire_load32(newsWord) != newsHeard }
  @usableFromInline
  func hearNews() throws(StackError) -> Bool {
    newsHeard = acquire_load32(newsWord)
    return try environment.hearNews()
  }
  @inlinable
  func ring() { for queue in 0..<queues { ends[queue].ring() } }
  @inlinable
  func awake() { for queue in 0..<queues { ends[queue].doorbell.awake() } }
  @inlinable
  func prepareToSleep() -> Bool {
    var maySleep = true
    for queue in 0..<queues where !ends[queue].prepareToSleep() { maySleep = false }
    return maySleep
  }
}
