import Channel
import Driver
import Memory

/// The way of every packet through one queue pair, as the thread that turns it and the control thread see it.
@usableFromInline
package protocol QueuePath: ~Copyable, SendableMetatype {
  associatedtype QueuePair: NetworkQueuePair & ~Copyable

  /// Whether the control thread wants something changed.
  var hasUpdate: Bool { get }
  mutating func takeUpdate()
  /// One burst in each direction.
  /// - Returns: whether there was anything to do.
  mutating func turn() throws(HostError) -> Bool
  /// The same, and what of it takes how long is counted.
  mutating func timedTurn() throws(HostError) -> Bool
  /// Where times are counted.
  var times: PathTimes { get set }
  /// Looks whether what has been marked has been taken.
  mutating func lookAtMarks()
  /// Arms the device's interrupts and the channels' doorbells.
  /// - Returns: whether the caller may sleep; false when something has arrived meanwhile.
  mutating func prepareToSleep() -> Bool
  /// Milliseconds for which the caller may then sleep.
  var sleepLimit: Int32 { get }
  /// - Parameter rings: a bit for each instance whose doorbell has rung since the sleep.
  mutating func wake(by rings: UInt64)
  /// After the driver has stopped: what the device held is the host's again, and packets that it has not sent, which are
  /// lost, are their sender's.
  /// - Returns: whether all of it is back.
  @discardableResult
  mutating func takeBackFromDevice() -> Bool
  /// Another queue pair in place of one from which all has been taken back.
  mutating func goOn(with new: consuming QueuePair)
  /// What the path has counted so far.
  var report: PathReport { get }
  /// Publishes what only this kind of path counts.
  mutating func publish(to statistics: HostStatistics)
}

extension QueuePath where Self: ~Copyable {
  /// One burst in each direction. One turn in ``PathTimes/interval`` is timed.
  /// - Parameter number: of the turn.
  @inlinable @inline(__always)
  package mutating func turn(_ number: UInt32) throws(HostError) -> Bool {
    let worked = number & (PathTimes.interval &- 1) == 0 ? try timedTurn() : try turn()
    if times.waits { lookAtMarks() }
    return worked
  }
}

/// What every path counts.
@usableFromInline
package struct PathReport {
  var driver: QueueStatistics
  var dropsRingFull: UInt64
  var segmentsWithHost: Int
  var segmentsWithDevice: Int
  var segmentsWithInstance: Int
  /// Slots in use of each ring.
  var levels = RingLevels()
}

/// Slots in use of the rings of a queue, now.
@usableFromInline
package struct RingLevels {
  /// Of the instance's channel; nil where there are many instances.
  var receive: Int?
  var transmit: Int?
  var completion: Int?
  var free: Int?
  /// Packets that the device has not done with.
  var device = 0

  /// In the order in which they are published.
  var all: [Int?] { [receive, transmit, completion, free, device] }
  static let names = ["receive", "transmit", "completion", "free", "device"]
}

/// Free segments go to the device in bulk.
/// - Parameter posts: empty before and after.
@inlinable @inline(never)
func postSegments<QueuePair: NetworkQueuePair & ~Copyable>(
  of ledger: inout SegmentLedger, to queuePair: inout QueuePair, by posts: inout Burst
) throws(HostError) {
  let room = min(queuePair.receiveRoom, posts.capacity)
  if room < 16 { return }
  ledger.lend(upTo: room, into: &posts)
  if posts.isEmpty { return }
  do throws(DriverError) {
    try queuePair.postReceive(&posts)
  } catch {
    throw .driver(error)
  }
  // What the ring did not take is still free.
  for index in 0..<posts.count { ledger.reclaim(posts[index].segment) }
  posts.removeAll()
}
