import CLinux
import Channel
import Glibc
import Memory

/// The loop of a stage's process, compiled for each stage: takes packets from all queues while there are any, then polls on
/// or sleeps until a doorbell, a deadline or the end of its supervisor, as the mode says.
@usableFromInline
struct StageLoop<Stage: PacketStage & ~Copyable>: ~Copyable {
  @usableFromInline var running: RunningStage<Stage>
  @usableFromInline let process: StageProcess
  @usableFromInline var burst = Burst(capacity: StageQueue.burst * StagedPacket.slots)
  /// Turns without work before the loop sleeps; nil where it never does.
  @usableFromInline let patience: Int?
  /// The supervisor is heard so often while there is work, in nanoseconds.
  @usableFromInline static var hearing: UInt64 { @inlinable get { 1_000_000 } }

  @usableFromInline
  init(_ stage: consuming Stage, _ process: StageProcess) throws(StageError) {
    running = try RunningStage(
      stage, queues: process.queues, arena: process.arena.address,
      byteCount: process.arena.byteCount)
    self.process = process
    patience =
      switch process.mode {
      case .poll, .yield: nil
      case .adaptive: 200
      case .interrupt: 0
      }
    running.output.counters.name(on: process.counters)
  }

  /// Says that the stage is ready, and runs until the supervisor says stop or is gone. What is held goes on then.
  /// - Throws: why it cannot go on: the host broke the channel's rules.
  @inlinable
  mutating func run() throws(StageError) {
    process.say("ready")
    var idle = 0
    var heard: UInt64 = 0
    while !process.isAskedToEnd {
      let now = monotonic_nanoseconds()
      running.output.clock = now
      if now &- heard > Self.hearing {
        heard = now
        if !process.hear() { break }
      }
      if try turn() { idle = 0 } else { idle += 1 }
      if idle == 0 { continue }
      if let patience, idle > patience {
        if !process.sleep(longestSleep) { break }
        idle = 0
      } else if process.mode == .yield, idle > PollMode.turnsBeforeYield {
        sched_yield()
      } else {
        cpu_pause()
      }
    }
    end()
  }

  @inlinable @inline(never)
  mutating func turn() throws(StageError) -> Bool {
    var worked = false
    for queue in 0..<process.queues {
      // What the host does not take back is not added to: so it cannot give more than the stage has room for.
      guard running.output.queues[queue].leaving.isEmpty else { continue }
      do throws(ChannelError) {
        try process.ends[queue].receive.pop(into: &burst)
      } catch {
        throw StageError(brokenBy: error)
      }
      if burst.isEmpty { continue }
      worked = true
      try running.take(burst, queue: queue)
      burst.removeAll()
    }
    if running.service() { worked = true }
    if giveBack() { worked = true }
    if worked { running.output.counters.publish(on: process.counters) }
    return worked
  }

  /// - Returns: whether anything went.
  @inlinable
  mutating func giveBack() -> Bool {
    var moved = false
    for queue in 0..<process.queues where !running.output.queues[queue].leaving.isEmpty {
      let before = running.output.queues[queue].leaving.count
      process.ends[queue].transmit.push(&running.output.queues[queue].leaving)
      if running.output.queues[queue].leaving.count == before { continue }
      moved = true
      process.ends[queue].ring()
    }
    return moved
  }

  /// Until the stage's deadline; a host that has not taken everything back is looked at again soon.
  @inlinable
  var longestSleep: UInt64 {
    var longest: UInt64 = 1_000_000_000
    for queue in 0..<process.queues where !running.output.queues[queue].leaving.isEmpty {
      longest = 100_000
    }
    let deadline = running.stage.nextDeadline
    return min(longest, deadline > running.output.now ? deadline &- running.output.now : 0)
  }

  /// What has come is still looked at; what is held goes on. A host that takes nothing back is waited for briefly.
  @usableFromInline
  mutating func end() {
    _ = try? turn()
    running.releaseAll()
    for _ in 0..<100 {
      _ = giveBack()
      if !hasLeaving { break }
      _ = poll(nil, 0, 1)
    }
    running.output.counters.publish(on: process.counters)
  }

  private var hasLeaving: Bool {
    (0..<process.queues).contains { !running.output.queues[$0].leaving.isEmpty }
  }
}
