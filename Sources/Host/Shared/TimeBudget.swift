/// How much of a queue thread's time an instance may have, whether or not others want it. One thread.
struct TimeBudget {
  /// Percent; 100 for no limit.
  let percent: Int
  /// Nanoseconds; below 0 where it has had more.
  private var left: Int

  /// Nanoseconds after which time is charged and granted anew.
  static let period: UInt64 = 250_000
  /// Nanoseconds for which an instance can save its time up, or have its share taken away.
  private static let memory = 2_000_000

  init(percent: Int) {
    self.percent = percent
    left = Self.memory * percent / 100
  }

  var isLimited: Bool { percent < 100 }
  var isSpent: Bool { left <= 0 }

  /// - Parameters:
  ///   - used: nanoseconds that the thread has worked for it.
  ///   - elapsed: nanoseconds since the last time.
  mutating func settle(used: Int, elapsed: UInt64) {
    let most = Self.memory * percent / 100
    let granted = Int(truncatingIfNeeded: min(elapsed, 1_000_000_000)) * percent / 100
    left = max(-most, min(most, left - used + granted))
  }
}
