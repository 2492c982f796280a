import CLinux
import Glibc
import Memory
import Testing

@testable import Channel
@testable import Commands

/// A service that answers from numbers of its own, and notes what it was asked for.
struct ScriptedService: CommandService {
  var joined: [(claim: String, instance: UInt32)] = []
  var left: [String] = []
  /// What commands that may take longer are answered with; nil leaves them pending.
  var answer: CommandOutcome? = .done
  var waiting: [(token: CommandToken, what: String)] = []
  /// How often each instance has been served at all.
  var served: [UInt32: Int] = [:]

  mutating func statistics(of caller: CommandCaller, queue: UInt64?) -> InstanceStatistics? {
    served[caller.instance, default: 0] += 1
    if let queue, queue > 3 { return nil }
    // The instance's number is in all of them, so that another's would be seen.
    let base = UInt64(caller.instance) << 32
    return InstanceStatistics(
      receivedPackets: base + 1, receivedBytes: base + 2, receiveDropped: base + 3,
      sentPackets: base + 4, sentBytes: base + 5, sendRefused: base + 10 + (queue ?? 9))
  }

  mutating func linkState(for caller: CommandCaller) -> LinkState {
    served[caller.instance, default: 0] += 1
    return LinkState(isUp: true, speed: 10_000, mtu: 1500)
  }

  mutating func time(for caller: CommandCaller, monotonic: UInt64) -> CommandTime {
    served[caller.instance, default: 0] += 1
    return CommandTime(monotonic: monotonic, realtime: UInt64(caller.uid))
  }

  mutating func join(
    _ claim: String, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    joined.append((claim, caller.instance))
    return begin("join \(claim)", token)
  }

  mutating func leave(
    _ claim: String, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    left.append(claim)
    return begin("leave \(claim)", token)
  }

  mutating func register(
    _ handle: MemoryHandleID, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    .done(MemoryRegistration(position: handle.high, byteCount: handle.low).values)
  }

  mutating func unregister(
    _ handle: MemoryHandleID, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome { handle.high == 7 ? .done : .refused(.notFound) }

  mutating func grow(
    by byteCount: UInt64, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    byteCount > 1 << 40 ? .refused(.exhausted) : .done([(64 << 20) + byteCount, 0, 0, 0, 0, 0])
  }

  mutating func shrink(
    by byteCount: UInt64, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome { .refused(.unsupported) }

  private mutating func begin(_ what: String, _ token: CommandToken) -> CommandOutcome {
    guard let answer else {
      waiting.append((token, what))
      return .pending
    }
    return answer
  }
}

/// A second view of a client's command memory, as a hostile client has it.
struct RawMemory: @unchecked Sendable {
  // Invariant: mapped until the process ends; tests are few.
  let bytes: UnsafeMutableRawPointer
  let byteCount: Int

  init(_ descriptor: Int32, _ layout: CommandLayout = .standard) throws {
    byteCount = layout.byteCount
    bytes = try #require(
      linux_mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0))
  }

  func set(_ offset: Int, _ value: UInt32) { release_store32(bytes + offset, value) }
  func get(_ offset: Int) -> UInt32 { acquire_load32(bytes + offset) }
}

/// A client's end of a new channel, and a second view of its memory. One thread at a time.
final class TestClient: @unchecked Sendable {
  var client: CommandClient
  let memory: RawMemory
  let credential: CredentialID
  /// The client's end of the doorbell; the client closes it.
  let doorbell: Int32

  init(_ client: consuming CommandClient, _ memory: RawMemory, doorbell: Int32) {
    credential = client.credential
    self.client = client
    self.memory = memory
    self.doorbell = doorbell
  }

  @discardableResult
  func submit(_ command: CommandSubmission) throws -> UInt64 { try client.submit(command) }
  @discardableResult
  func submit(_ number: CommandNumber, text: String) throws -> UInt64 {
    try client.submit(number, text: text)
  }
  func poll() throws -> CommandCompletion? { try client.poll() }
  /// The status of the next completion, nil where there is none.
  func status() throws -> CommandStatus? { try client.poll()?.status }
  var closure: CommandClosure? { client.closure }
}

/// A server with a scripted service. One thread at a time.
final class TestServer: @unchecked Sendable {
  var server: CommandServer
  var service = ScriptedService()

  init(credentials: Int = 256) throws { server = try CommandServer(credentials: credentials) }

  @discardableResult
  func turn() -> Bool { server.turn(&service) }
  func turnUntilQuiet() { while turn() {} }
  func prepareToSleep() -> Bool { server.prepareToSleep() }
  func complete(_ token: CommandToken, _ outcome: CommandOutcome) -> CommandServer.Completed {
    server.complete(token, outcome)
  }
  func count(_ status: CommandStatus) -> UInt64 { server.counters[status] }
  /// The next client that was closed.
  func closed() -> (instance: UInt32, reason: CommandClosure)? { server.nextClosed() }
  func issue(_ instance: UInt32, expiry: UInt64 = .max) -> CredentialID? {
    server.credentials.issue(
      instance: instance, uid: 1000, expiry: expiry, now: monotonic_nanoseconds())
  }

  var undone: UInt64 { server.counters.undone }
  func revoke(_ id: CredentialID) -> Bool { server.credentials.revoke(id) }
  func replace(_ id: CredentialID) -> CredentialID? {
    server.credentials.replace(id, expiry: .max, now: monotonic_nanoseconds())
  }
  @discardableResult
  func remove(_ instance: UInt32) -> Bool { server.remove(instance: instance) }

  /// Takes an instance in, as a supervisor does.
  func attach(
    _ instance: UInt32, uid: UInt32 = 1000, expiry: UInt64 = .max, startIndex: UInt32 = 0
  ) throws -> TestClient {
    let memory = try CommandMemory(layout: .standard)
    let raw = try RawMemory(memory.descriptor)
    let mine = try CommandMemory(adopting: dup(memory.descriptor))
    let doorbells = try CommandDoorbell.pair()
    let isAdded = server.add(
      instance: instance, memory, doorbell: CommandDoorbell(adopting: doorbells.server))
    #expect(isAdded)
    let issued = server.credentials.issue(
      instance: instance, uid: uid, expiry: expiry, now: monotonic_nanoseconds())
    let credential = try #require(issued)
    var client = CommandClient(
      mine, doorbell: CommandDoorbell(adopting: doorbells.client), credential: credential)
    if startIndex != 0 {
      server.begin(instance, at: startIndex)
      client.begin(at: startIndex)
    }
    return TestClient(client, raw, doorbell: doorbells.client)
  }
}

/// A cache of credentials that a test may ask in its expectations.
final class TestCache {
  private var cache: CredentialCache

  init(capacity: Int) { cache = CredentialCache(capacity: capacity) }

  func issue(_ instance: UInt32, expiry: UInt64, now: UInt64) throws -> CredentialID {
    let id = cache.issue(instance: instance, uid: 0, expiry: expiry, now: now)
    return try #require(id)
  }
  func isFull(now: UInt64) -> Bool {
    cache.issue(instance: 99, uid: 0, expiry: .max, now: now) == nil
  }
  @discardableResult
  func revoke(_ id: CredentialID) -> Bool { cache.revoke(id) }
  func admit(
    _ id: CredentialID, sequence: UInt64, instance: UInt32, now: UInt64
  ) -> CommandStatus { cache.admit(id, sequence: sequence, instance: instance, now: now).0 }
}

/// A thread of a test that gives some numbers.
final class TestThread {
  private final class Work: @unchecked Sendable {
    let body: @Sendable () throws -> [Int]
    var numbers: [Int] = []
    var failure: (any Error)?

    init(_ body: @escaping @Sendable () throws -> [Int]) { self.body = body }
  }

  private let work: Work
  private var thread = pthread_t()

  init(_ body: @escaping @Sendable () throws -> [Int]) {
    work = Work(body)
    // The work is held by this object until the thread has been joined.
    pthread_create(
      &thread, nil,
      { context in
        let work = Unmanaged<Work>.fromOpaque(context!).takeUnretainedValue()
        do { work.numbers = try work.body() } catch { work.failure = error }
        return nil
      }, Unmanaged.passUnretained(work).toOpaque())
  }

  /// Waits for its end. Must be called once.
  func join() throws -> [Int] {
    pthread_join(thread, nil)
    if let failure = work.failure { throw failure }
    return work.numbers
  }
}

/// A flag between threads.
final class Flag: @unchecked Sendable {
  private let word = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
  init() { release_store32(word, 0) }
  deinit { word.deallocate() }
  var isSet: Bool { acquire_load32(word) != 0 }
  func set() { release_store32(word, 1) }
}
