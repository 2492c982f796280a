import Glibc
import Trace

/// What a queue thread sleeps on.
struct QueueDescriptors {
  /// Rung by the stack instance.
  let doorbell: Int32
  let interrupt: Int32
  /// Where this queue's interrupt is that of others too: their doorbells.
  let alsoInterrupted: [Int32]
  /// Is told of each interrupt; nil where nothing is recorded.
  let recording: RecordingFunction?

  /// Sleeps until there is a doorbell or an interrupt, and empties both.
  /// - Returns: interrupts since the last call.
  func wait() -> UInt64 {
    var entries = [doorbell, interrupt].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    // An interrupt that a device owes and never sends must not end all.
    guard poll(&entries, 2, 1000) > 0 else { return 0 }
    if entries[0].revents != 0 { _ = drain(doorbell) }
    guard entries[1].revents != 0 else { return 0 }
    let count = drain(interrupt)
    for other in alsoInterrupted { signal(other) }
    return count
  }

  private func drain(_ descriptor: Int32) -> UInt64 {
    var value: UInt64 = 0
    guard read(descriptor, &value, 8) == 8 else { return 0 }
    if descriptor == interrupt { recording?.interruptTaken(descriptor) }
    return value
  }
}
