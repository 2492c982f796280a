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
  public internal(set) var counters = CommandCounters()
  /// Readable while a client's doorbell has something to say: for poll(2), beside whatever else the thread waits for.
  public let descriptor: Int32
  // Invariant: the places whose bit is set in `present` hold a client each, the others nothing. `open` is a part of
  // `present`: those that are served.
  let clients: UnsafeMutablePointer<ServedClient>
  private var present: UInt64 = 0
  var open: UInt64 = 0
  var isAwake = true
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

  /// The client in a place that is taken. By a function: with the thread sanitizer the compiler (6.3) fails at what is
  /// changed behind a pointer that is a property.
  func client(_ place: Int) -> UnsafeMutablePointer<ServedClient> { clients + place }

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
    client(place).pointee.end.close(closure)
    _ = epoll_ctl(descriptor, EPOLL_CTL_DEL, clients[place].end.doorbellDescriptor, nil)
  }

  mutating func close(_ place: Int, breaking closure: CommandClosure) {
    shut(place, closure)
    unreported |= 1 << UInt64(place)
    if closure != .gone { counters.closed += 1 }
  }

  /// For tests: a client's rings begin here, before anything has gone through them.
  mutating func begin(_ instance: UInt32, at index: UInt32) {
    if let place = place(of: instance) { client(place).pointee.end.begin(at: index) }
  }

  // MARK: sleep

  /// Says to all clients that the server is about to sleep.
  /// - Returns: whether it may: false where a command has come meanwhile. Then, and after sleep, ``turn(_:)`` is next.
  public mutating func prepareToSleep() -> Bool {
    isAwake = false
    var left = open
    while left != 0 {
      client(left.trailingZeroBitCount).pointee.end.announceSleep()
      left &= left &- 1
    }
    full_fence()
    left = open
    while left != 0 {
      if !client(left.trailingZeroBitCount).pointee.end.isEmpty() { return false }
      left &= left &- 1
    }
    return true
  }

  mutating func wake() {
    isAwake = true
    var left = open
    while left != 0 {
      client(left.trailingZeroBitCount).pointee.end.awake()
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
    switch client(place).pointee.end.answerDoorbell() {
    case .silent: break
    case .gone: close(place, breaking: .gone)
    case .rung: if !client(place).pointee.noteRing() { close(place, breaking: .needlessRings) }
    }
  }
}
