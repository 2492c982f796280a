import Host

/// Sees whether the threads of a driver host go on, by the signs that they give: not by traffic, of which there may be none.
/// Looks are counted, not time: a supervisor that was stopped itself has not seen anything.
struct HeartbeatWatch {
  private var threads: [(sign: HostSigns.Sign, unchanged: Int)]
  /// When to look again, in milliseconds of the monotonic clock.
  private(set) var due: UInt64

  private static let period: UInt64 = 500
  /// Looks at which a thread is the same as before when it hangs: one that works, a queue's that sleeps, which it does for
  /// a second at most, and the control thread, which waits for answers of a device behind a socket for some seconds.
  private static let working = 3
  private static let sleepingQueue = 6
  private static let workingControl = 24

  /// - Parameter queues: of the function.
  init(queues: Int, at now: UInt64) {
    threads = Array(
      repeating: (sign: HostSigns.Sign(), unchanged: 0), count: queues + 1)
    due = now + Self.period
  }

  /// - Returns: what hangs; nil where all go on.
  mutating func look(_ signs: HostSigns, at now: UInt64) -> String? {
    if now < due { return nil }
    due = now + Self.period
    for thread in threads.indices {
      let sign = signs.sign(ofThread: thread)
      let isSame = sign == threads[thread].sign && sign.state != .idle
      threads[thread] = (sign, isSame ? threads[thread].unchanged + 1 : 0)
      if threads[thread].unchanged >= Self.limit(thread, sign.state) {
        return thread == 0 ? "its control thread hangs" : "the thread of queue \(thread - 1) hangs"
      }
    }
    return nil
  }

  private static func limit(_ thread: Int, _ state: HostSigns.State) -> Int {
    switch (thread, state) {
    case (0, .working): workingControl
    case (0, _): .max
    case (_, .sleeping): sleepingQueue
    default: working
    }
  }
}
