/// When the next driver host is started after one has failed, and when no more. Times in milliseconds of the monotonic
/// clock.
struct RestartBackOff {
  /// Failures within ``span`` after which there is no other host.
  let limit: Int
  private var failures: [UInt64] = []
  private var delay: UInt64 = 0

  static let span: UInt64 = 10_000
  /// A host that has lived for so long is followed by another at once.
  private static let settled: UInt64 = 200
  private static let shortest: UInt64 = 10
  private static let longest: UInt64 = 1000

  init(limit: Int) { self.limit = limit }

  /// A host has failed.
  /// - Parameter lived: for how long it was there.
  /// - Returns: how long to wait for the next; nil for ever.
  mutating func next(at now: UInt64, lived: UInt64) -> UInt64? {
    failures.removeAll { now - $0 >= Self.span }
    failures.append(now)
    if failures.count >= limit { return nil }
    if lived >= Self.settled {
      delay = 0
    } else {
      delay = min(max(2 * delay, Self.shortest), Self.longest)
    }
    return delay
  }
}
