/// When a driver host polls and when it sleeps.
public enum PollMode: String, Sendable, CaseIterable {
  /// Never sleeps: the lowest latency, one core always busy.
  case poll
  /// Polls while there is work and for 50 microseconds after, then sleeps until an interrupt or a doorbell.
  case adaptive
  /// Sleeps as soon as there is nothing to do.
  case interrupt

  @usableFromInline
  func sleepsAfter(idleNanoseconds: UInt64) -> Bool {
    switch self {
    case .poll: false
    case .adaptive: idleNanoseconds > 50_000
    case .interrupt: true
    }
  }
}
