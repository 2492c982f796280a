import CLinux
import Glibc

/// A thread that keeps changing memory, as a device or another process may at any time. One for the whole process.
final class Meddler: @unchecked Sendable {
  static let shared = Meddler()

  // Invariant: two words, never freed: whether there is something to change, and whether the thread does.
  private let wanted: UnsafeMutableRawPointer
  private let busy: UnsafeMutableRawPointer
  // Written only while the thread is not busy and nothing is wanted.
  private var memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)
  private var seed: UInt64 = 0

  private init() {
    wanted = .allocate(byteCount: 64, alignment: 64)
    busy = .allocate(byteCount: 64, alignment: 64)
    release_store32(wanted, 0)
    release_store32(busy, 0)
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
  func change<E>(
    _ memory: UnsafeMutableRawBufferPointer, seed: UInt64, while body: () throws(E) -> Void
  ) throws(E) {
    if seed == 0 { return try body() }
    self.memory = memory
    self.seed = seed
    release_store32(wanted, 1)
    while acquire_load32(busy) == 0 { sched_yield() }
    defer {
      release_store32(wanted, 0)
      while acquire_load32(busy) != 0 { sched_yield() }
    }
    try body()
  }

  private func work() {
    while true {
      while acquire_load32(wanted) == 0 { sched_yield() }
      release_store32(busy, 1)
      var state = seed
      while acquire_load32(wanted) != 0 { meddle(&state) }
      release_store32(busy, 0)
    }
  }

  /// One word becomes something else: a small number, its neighbour, or anything.
  private func meddle(_ state: inout UInt64) {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    let word = memory.baseAddress! + Int(state >> 33) % (memory.count / 4) * 4
    let before = volatile_load32(word)
    switch state >> 30 & 7 {
    case 0, 1: volatile_store32(word, before &+ 1)
    case 2: volatile_store32(word, before &- 1)
    case 3, 4: volatile_store32(word, UInt32(truncatingIfNeeded: state >> 24) & 0xff)
    case 5: volatile_store32(word, before ^ 1 << (state >> 20 & 31))
    default: volatile_store32(word, UInt32(truncatingIfNeeded: state >> 16))
    }
  }
}
