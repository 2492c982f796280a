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

/// The client's end of a new channel, and a second view of its memory.
struct Attached: ~Copyable {
  var client: CommandClient
  let memory: RawMemory
  let credential: CredentialID
  /// The client's end of the doorbell; the client closes it.
  let doorbell: Int32
}

extension CommandServer {
  /// Takes an instance in, as a supervisor does.
  mutating func attach(
    _ instance: UInt32, uid: UInt32 = 1000, expiry: UInt64 = .max, startIndex: UInt32 = 0
  ) throws -> Attached {
    let memory = try CommandMemory(layout: .standard)
    let raw = try RawMemory(memory.descriptor)
    let mine = try CommandMemory(adopting: dup(memory.descriptor))
    let doorbells = try CommandDoorbell.pair()
    let isAdded = add(
      instance: instance, memory, doorbell: CommandDoorbell(adopting: doorbells.server))
    #expect(isAdded)
    let id = credentials.issue(instance: instance, uid: uid, expiry: expiry, now: Self.now)
    let credential = try #require(id)
    var client = CommandClient(
      mine, doorbell: CommandDoorbell(adopting: doorbells.client), credential: credential)
    if startIndex != 0 {
      begin(instance, at: startIndex)
      client.begin(at: startIndex)
    }
    return Attached(
      client: client, memory: raw, credential: credential, doorbell: doorbells.client)
  }
}

/// What a thread of a test gives.
final class TestThread<Result>: @unchecked Sendable {
  private let body: @Sendable () throws -> Result
  private var thread = pthread_t()
  private var result: Swift.Result<Result, any Error>?

  init(_ body: @escaping @Sendable () throws -> Result) {
    self.body = body
    pthread_create(
      &thread, nil,
      { context in
        let thread = Unmanaged<TestThread<Result>>.fromOpaque(context!).takeUnretainedValue()
        thread.result = Swift.Result { try thread.body() }
        return nil
      }, Unmanaged.passUnretained(self).toOpaque())
  }

  /// Waits for its end. Must be called once.
  func join() throws -> Result {
    pthread_join(thread, nil)
    return try #require(result).get()
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
