import Glibc
import Steering
import Synchronization

/// One thread that looks packets up, and one that changes the rules a hundred times a second.
struct CaptureRun {
  struct Difference: Error, CustomStringConvertible {
    var description: String
  }

  private static let burst = 32
  /// Sets that a run sees at least, for one second at best.
  private static let leastVersions = 100
  private static let longest: UInt64 = 200_000_000_000

  let frames: [[UInt8]]
  let pool: RulePool
  let rules: ChangingRules
  let count: Int

  init(_ frames: [[UInt8]], rules count: Int) throws {
    self.frames = frames
    self.count = count
    // The same each time, so that a difference can be found again.
    var random = Numbers(state: UInt64(count))
    pool = try RulePool(frames, rules: count + count / 4 + 8, using: &random)
    rules = ChangingRules(pool, count: count)
  }

  func run(packets: Int) throws {
    let shared = try Shared(rules)
    let changer = try Changer(rules, shared)
    let outcome = Result { try look(packets, shared) }
    let changes = try changer.stop()
    let found = try outcome.get()
    guard found.versions <= changes.sets + 1 else {
      throw Difference(description: "more sets than there were: \(found), \(changes)")
    }
    let seconds = Double(found.nanoseconds) / 1e9
    print(
      "\(count) rules: \(found.looked) packets in \(Int(seconds * 1000)) ms, \(found.hits) hit a rule; \(changes.count) changes in \(changes.sets) sets, the slowest made in \(changes.slowest / 1000) us; \(found.versions) sets seen, of which one compares \(shared.current.classifier.view.steps) rules at most; \(pool.matching.reduce(0) { $0 + $1.count } / frames.count) rules match a frame: all as the plain classifier says"
    )
  }

  private struct Found {
    var looked = 0
    var hits = 0
    var versions = 0
    var nanoseconds: UInt64 = 0
  }

  private func look(_ packets: Int, _ shared: Shared) throws -> Found {
    var found = Found()
    var random = Numbers(state: 7)
    var last: RuleVersion?
    let began = monotonicNanoseconds()
    while found.looked < packets || found.versions < Self.leastVersions {
      if monotonicNanoseconds() - began > Self.longest {
        throw Difference(description: "too slow: \(found)")
      }
      let version = shared.current
      if version !== last { found.versions += 1 }
      last = version
      for _ in 0..<Self.burst {
        let index = Int.random(in: frames.indices, using: &random)
        let rule = frames[index].withUnsafeBytes { bytes in
          guard let start = bytes.baseAddress else { return -1 }
          let packet = PacketHeader(frame: start, byteCount: bytes.count)
          return version.classifier.view.match(packet, frame: start, byteCount: bytes.count)
        }
        let expected = version.expected(pool.matching[index])
        if rule != expected {
          let name = { $0 < 0 ? "none" : pool.set.rules[Int(version.places[$0])].description }
          throw Difference(
            description: "\(frames[index]): \(name(rule)), not \(name(expected))")
        }
        found.looked += 1
        if rule >= 0 { found.hits += 1 }
      }
    }
    found.nanoseconds = monotonicNanoseconds() - began
    return found
  }
}

/// The newest set. A burst is looked up in one of them as a whole.
final class Shared: Sendable {
  private let version: Mutex<RuleVersion>

  init(_ rules: ChangingRules) throws { version = Mutex(try rules.version()) }

  var current: RuleVersion {
    get { version.withLock { $0 } }
    set { version.withLock { $0 = newValue } }
  }
}

/// Changes rules in a thread of its own, until it is stopped.
final class Changer: @unchecked Sendable {
  struct Changes {
    /// Of single rules.
    var count = 0
    /// Sets that were made of them.
    var sets = 0
    /// Of making a set, in nanoseconds.
    var slowest: UInt64 = 0
  }

  /// Nanoseconds from one change to the next: a hundred a second.
  private static let interval: UInt64 = 10_000_000

  private var thread = pthread_t()
  private let isStopped = Atomic(false)
  private var rules: ChangingRules
  private let shared: Shared
  // Invariant: of the thread alone until it has ended.
  private var changes = Changes()
  private var failure: (any Error)?

  init(_ rules: ChangingRules, _ shared: Shared) throws {
    self.rules = rules
    self.shared = shared
    let argument = Unmanaged.passRetained(self).toOpaque()
    let result = pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        Unmanaged<Changer>.fromOpaque(argument).takeRetainedValue().run()
        return nil
      }, argument)
    guard result == 0 else { throw CaptureRun.Difference(description: "no thread: \(result)") }
  }

  private func run() {
    var random = Numbers(state: 3)
    let start = monotonicNanoseconds()
    while !isStopped.load(ordering: .acquiring) {
      let began = monotonicNanoseconds()
      // Changes that were due while a set was made come together in the next.
      let due = Int((began - start) / Self.interval) + 1
      do {
        while changes.count < due {
          rules.change(using: &random)
          changes.count += 1
        }
        shared.current = try rules.version()
      } catch {
        failure = error
        return
      }
      changes.sets += 1
      let now = monotonicNanoseconds()
      changes.slowest = max(changes.slowest, now - began)
      let next = start + UInt64(changes.count) * Self.interval
      if now < next { usleep(UInt32((next - now) / 1000)) }
    }
  }

  func stop() throws -> Changes {
    isStopped.store(true, ordering: .releasing)
    pthread_join(thread, nil)
    if let failure { throw failure }
    return changes
  }
}

/// Xorshift64* (Vigna 2016).
struct Numbers: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state = state == 0 ? 1 : state
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return state &* 0x2545_f491_4f6c_dd1d
  }
}

func monotonicNanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
