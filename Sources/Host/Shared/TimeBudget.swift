import Glibc

/// How much of a queue thread's time an instance may have, whether or not others want it: a part of each period, and
/// nothing saved up. One thread.
struct TimeBudget {
  /// Percent; 100 for no limit.
  let percent: Int
  /// Nanoseconds; below 0 where the last work took longer than there was time for.
  private var left: Int

  /// Nanoseconds between two grants, and that a grant is for.
  static let period: UInt64 = 1_000_000

  init(percent: Int) {
    self.percent = percent
    left = Int(Self.period) * percent / 100
  }

  var isLimited: Bool { percent < 100 }
  var isSpent: Bool { left <= 0 }

  mutating func spend(_ nanoseconds: Int) { left &-= nanoseconds }

  /// - Parameter nanoseconds: since the last grant.
  mutating func grant(after nanoseconds: UInt64) {
    let part = Int(Self.period) &* percent / 100
    let granted = Int(truncatingIfNeeded: min(nanoseconds, 1_000_000_000)) &* percent / 100
    left = min(left &+ granted, part)
  }
}

/// CLOCK_MONOTONIC in nanoseconds, read without a switch to the kernel (vDSO).
func monotonicNanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
}
