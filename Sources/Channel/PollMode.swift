/// When an end of a channel polls and when it sleeps: for driver hosts and stack instances alike.
public enum PollMode: String, Sendable, CaseIterable {
  /// Never sleeps: the lowest latency, one core always busy for each thread.
  case poll
  /// Polls, and gives its core up for a moment whenever there is nothing to do: for threads that have to share cores.
  case yield
  /// Polls while there is work and for 50 microseconds after, then sleeps until an interrupt or a doorbell.
  case adaptive
  /// Sleeps as soon as there is nothing to do.
  case interrupt

  /// Turns without work before a thread in ``yield`` gives its core up: few, since on a shared core nothing comes until
  /// the other end has had it.
  public static let turnsBeforeYield = 2

  /// Turns with work, a power of two, after which a host's thread in ``yield`` gives its core up too: so many that the
  /// change of thread costs little a packet, so few that what an instance has yet to read stays in the caches.
  public static let busyTurnsBeforeYield = 16
}
