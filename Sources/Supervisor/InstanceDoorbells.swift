import CLinux
import Channel
import Glibc
import Memory

/// How a driver host and one instance wake each other: a pair of sockets for the instance, and for each of the host's queue
/// threads an eventfd. No other instance has any of them.
final class InstanceDoorbells {
  /// At which the host, and the supervisor, wake the instance.
  let hostEnd: Int32
  /// The instance's end; -1 once it has been given away.
  private(set) var instanceEnd: Int32
  /// Rung by the instance for queue n. Kept for the next driver host.
  private(set) var events: [Int32] = []

  init(queues: Int) throws(SupervisorError) {
    let ends = try asInput { () throws(MemoryError) -> (server: Int32, client: Int32) in
      try CommandDoorbell.pair()
    }
    (hostEnd, instanceEnd) = (ends.server, ends.client)
    for _ in 0..<queues {
      let event = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
      guard event >= 0 else { throw .system("eventfd", errno) }
      events.append(event)
    }
  }

  deinit {
    close(hostEnd)
    for event in events { close(event) }
    closeGivenAway()
  }

  /// The instance has a descriptor of its own of its end.
  func closeGivenAway() {
    if instanceEnd >= 0 { close(instanceEnd) }
    instanceEnd = -1
  }

  /// Wakes the instance, and waits for nothing.
  func wakeInstance() {
    var one: UInt64 = 1
    _ = send(hostEnd, &one, 8, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
  }
}
