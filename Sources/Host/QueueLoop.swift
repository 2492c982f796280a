import CLinux
import Channel
import Glibc

/// The loop of a queue thread: it turns its path until told to stop, and in between publishes its counters, polls
/// or sleeps. While there is work it makes no system call and reads no clock.
///
/// What is inlinable is compiled for each driver of a host program; the rest is off the way of packets.
@usableFromInline
struct QueueLoop<Path: QueuePath & ~Copyable>: @unchecked Sendable {
  // Invariant: from the thread's start to its end the path is that thread's alone, and outlives it; so does `stopWord`,
  // which `run` holds.
  @usableFromInline let path: UnsafeMutablePointer<Path>
  @usableFromInline let stopWord: UnsafeMutableRawPointer
  private let queue: Int
  @usableFromInline let mode: PollMode
  private let descriptors: QueueDescriptors
  private let statistics: HostStatistics
  private let run: HostRun
  @usableFromInline let pulse: Pulse

  @usableFromInline var turns: UInt32 = 0
  /// One less than the turns, a power of two, after which a thread with work does what else is due. 0 until the first packet
  /// has come: when that was is written down.
  @usableFromInline var restMask: UInt32 = 0
  /// Turns without work, one after the other.
  @usableFromInline var idleTurns = 0
  /// When the first of them was, in nanoseconds of the monotonic clock.
  private var idleSince: UInt64 = 0
  private var counts = SleepCounts()

  init(
    path: UnsafeMutablePointer<Path>, queue: Int, mode: PollMode,
    descriptors: QueueDescriptors, statistics: HostStatistics, run: HostRun
  ) {
    self.path = path
    self.queue = queue
    self.mode = mode
    self.descriptors = descriptors
    self.statistics = statistics
    self.run = run
    stopWord = run.stopWord
    pulse = run.signs.pulse(1 + queue)
    path.pointee.times = statistics.times(queue: queue)
  }

  /// The thread's whole work. Why it cannot go on is left in the run.
  @inlinable
  mutating func turn() {
    pulse.set(.working)
    do throws(HostError) {
      try turnUntilToldToStop()
    } catch {
      fail(error)
    }
    publish()
    pulse.set(.idle)
  }

  @inlinable @inline(never)
  mutating func turnUntilToldToStop() throws(HostError) {
    while relaxed_load32(stopWord) == 0 {
      if path.pointee.hasUpdate { path.pointee.takeUpdate() }
      let worked = try path.pointee.turn(turns)
      turns &+= 1
      if worked {
        idleTurns = 0
        if turns & restMask != 0 { continue }
      }
      pause(afterWork: worked)
    }
  }

  /// Between two turns: publishes the counters now and then, and waits as the mode says where there was no work.
  /// Compiled for each driver so that turning needs nothing of the run-time system to call it.
  @inlinable @inline(never)
  mutating func pause(afterWork worked: Bool) {
    pulse.go()
    if restMask == 0 { lookForFirstPacket() }
    if turns & 1023 == 0 { publish() }
    if !worked {
      idle()
    } else if mode == .yield {
      // A device that never pauses must not keep the instance from taking what has come.
      sched_yield()
    }
  }

  @usableFromInline
  mutating func lookForFirstPacket() {
    if path.pointee.report.driver.receivedPackets == 0 { return }
    run.signs.note(.firstPacket)
    restMask = mode == .yield ? UInt32(PollMode.busyTurnsBeforeYield) - 1 : 1023
  }

  @usableFromInline
  mutating func idle() {
    idleTurns += 1
    switch mode {
    case .poll: cpu_pause()
    case .yield:
      if idleTurns > PollMode.turnsBeforeYield { sched_yield() } else { cpu_pause() }
    case .adaptive:
      let now = monotonic_nanoseconds()
      if idleTurns == 1 { idleSince = now }
      if now - idleSince > 50_000 { sleep() } else { cpu_pause() }
    case .interrupt: sleep()
    }
  }

  /// Sleeps until a doorbell, an interrupt or the end.
  private mutating func sleep() {
    idleTurns = 0
    var rings: UInt64 = 0
    if path.pointee.prepareToSleep() {
      counts.sleeps += 1
      publish()
      pulse.set(.sleeping)
      counts.interrupts += descriptors.wait(milliseconds: path.pointee.sleepLimit, &rings)
      pulse.set(.working)
    }
    path.pointee.wake(by: rings)
  }

  @usableFromInline
  func publish() {
    statistics.publish(path.pointee.report, counts, queue: queue)
    path.pointee.publish(to: statistics)
  }

  @usableFromInline
  func fail(_ error: HostError) { run.fail(error) }
}

/// What a queue thread counts of its own rest.
struct SleepCounts {
  var sleeps: UInt64 = 0
  var interrupts: UInt64 = 0
}
