import Glibc
import Trace

/// What a queue thread sleeps on.
struct QueueDescriptors {
  let wakes: WakeSet
  /// Where this queue's interrupt is that of others too: what wakes them.
  let alsoInterrupted: [WakeSet]
  /// Is told of each interrupt; nil where nothing is recorded.
  let recording: RecordingFunction?

  /// Sleeps until there is a doorbell or an interrupt, or time is up.
  /// - Parameter rings: gets a bit for each instance whose doorbell has rung.
  /// - Returns: interrupts since the last call.
  func wait(milliseconds limit: Int32, _ rings: inout UInt64) -> UInt64 {
    guard wakes.wait(milliseconds: limit, &rings) else { return 0 }
    var count: UInt64 = 0
    guard read(wakes.interrupt, &count, 8) == 8 else { return 0 }
    recording?.interruptTaken(wakes.interrupt)
    for other in alsoInterrupted { other.ring() }
    return count
  }
}
