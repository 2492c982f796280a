/// When to try again to reach a device that has gone. Times in milliseconds of the monotonic clock.
struct Reconnection {
  /// The next attempt.
  private(set) var due: UInt64 = 0
  private var delay = shortest
  private var ended: UInt64?

  private static let shortest: UInt64 = 20
  private static let longest: UInt64 = 1000
  /// A device that stays for less time than this is not reached sooner than before.
  private static let settled: UInt64 = 5000

  /// The device has gone.
  mutating func begin(at now: UInt64) {
    if let ended, now - ended < Self.settled {
      delay = min(2 * delay, Self.longest)
    } else {
      delay = Self.shortest
    }
    due = now + delay
  }

  /// It could not be reached.
  mutating func postpone(at now: UInt64) {
    delay = min(2 * delay, Self.longest)
    due = now + delay
  }

  /// It is back.
  mutating func end(at now: UInt64) { ended = now }
}
