import CLinux
import Glibc
import Synchronization

/// A thread that keeps changing memory, as a device or another process may at any time. One for the whole process; it
/// sleeps where nothing is to be changed.
public final class Meddler: Sendable {
  public static let shared = Meddler()

  private enum State {
    static let idle = 0
    static let wanted = 1
    static let busy = 2
    static let toStop = 3
  }

  /// About as long as an input takes.
  private static var changeLimit: Int { 5000 }

  private let state = Atomic(State.idle)
  private let event = eventfd(0, Int32(EFD_CLOEXEC))
  // Where to write and what: written before the state says wanted.
  private let start = Atomic<UInt>(0)
  private let byteCount = Atomic(0)
  private let seed = Atomic<UInt64>(0)

  private init() {
    var thread = pthread_t()
    let started = pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<Meddler>.fromOpaque(argument!).takeUnretainedValue().work()
        return nil
      }, Unmanaged.passRetained(self).toOpaque())
    require(started == 0, "no thread can be made")
  }

  /// Does `body` while the memory changes under it.
  /// - Parameter seed: of what is written; 0 for nothing, so that a run can be repeated.
  public func change<E>(
    _ memory: UnsafeMutableRawBufferPointer, seed: UInt64, while body: () throws(E) -> Void
  ) throws(E) {
    if seed == 0 { return try body() }
    start.store(UInt(bitPattern: memory.baseAddress), ordering: .relaxed)
    byteCount.store(memory.count, ordering: .relaxed)
    self.seed.store(seed, ordering: .relaxed)
    state.store(State.wanted, ordering: .releasing)
    var one: UInt64 = 1
    _ = write(event, &one, 8)
    // Bounded: on a busy machine the thread may come too late for this input.
    for _ in 0..<100 where state.load(ordering: .relaxed) == State.wanted { sched_yield() }
    defer { stop() }
    try body()
  }

  /// When this returns, nothing is changed any more.
  private func stop() {
    let (isLate, _) = state.compareExchange(
      expected: State.wanted, desired: State.idle, ordering: .acquiringAndReleasing)
    if isLate { return }
    let (isBusy, _) = state.compareExchange(
      expected: State.busy, desired: State.toStop, ordering: .acquiringAndReleasing)
    while isBusy && state.load(ordering: .acquiring) != State.idle { sched_yield() }
  }

  private func work() {
    while true {
      var count: UInt64 = 0
      _ = read(event, &count, 8)
      let (isWanted, _) = state.compareExchange(
        expected: State.wanted, desired: State.busy, ordering: .acquiringAndReleasing)
      if !isWanted { continue }
      // Invariant: the memory of whoever wants this, which waits for the state to be idle again.
      let memory = UnsafeMutableRawPointer(bitPattern: start.load(ordering: .relaxed))!
      let words = byteCount.load(ordering: .relaxed) / 4
      var random = seed.load(ordering: .relaxed)
      // Bounded: on a busy machine whoever wants this may not run for long, and it takes the processor from them.
      for _ in 0..<Self.changeLimit where state.load(ordering: .relaxed) == State.busy {
        meddle(memory, words, &random)
      }
      state.store(State.idle, ordering: .releasing)
    }
  }

  /// One word becomes something else: its neighbour, a small number, or anything.
  private func meddle(_ memory: UnsafeMutableRawPointer, _ words: Int, _ random: inout UInt64) {
    random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    let word = memory + Int(random >> 33) % words * 4
    let before = volatile_load32(word)
    switch random >> 30 & 7 {
    case 0, 1: volatile_store32(word, before &+ 1)
    case 2: volatile_store32(word, before &- 1)
    case 3, 4: volatile_store32(word, UInt32(truncatingIfNeeded: random >> 24) & 0xff)
    case 5: volatile_store32(word, before ^ 1 << UInt32(random >> 20 & 31))
    default: volatile_store32(word, UInt32(truncatingIfNeeded: random >> 16))
    }
  }
}
