import CLinux
import Glibc

/// Those whose time is limited. Four times a millisecond the thread's time is shared out among all that it has worked for,
/// by what their work costs; who has had more than is his waits. Where nobody is limited no clock is read.
extension InstanceTable {
  /// Milliseconds that the thread may sleep at most.
  @usableFromInline var sleepLimit: Int32 { spent == 0 ? 1000 : 1 }

  /// Work for an instance.
  /// - Parameter cost: in the unit of ``PacketCost``.
  @inline(__always)
  mutating func note(_ index: Int, cost: Int) {
    if limited == 0 { return }
    work &+= cost
    port(index).pointee.work &+= cost
  }

  /// These have woken the thread, for however little.
  mutating func noteRings(_ rings: UInt64) {
    var set = rings & open
    while set != 0 { note(set.removeFirstInstance(), cost: PacketCost.wake) }
  }

  /// Charges and grants time, where it is time to.
  @inline(never)
  mutating func settleTime() {
    let now = monotonic_nanoseconds()
    let elapsed = now &- settledAt
    if elapsed < TimeBudget.period { return }
    settledAt = now
    let cpu = clock_nanoseconds(CLOCK_THREAD_CPUTIME_ID)
    let used = Int(truncatingIfNeeded: min(cpu &- usedUntil, elapsed))
    usedUntil = cpu
    let all = max(1, work)
    work = 0
    var set = limited
    while set != 0 {
      let index = set.removeFirstInstance()
      let port = port(index)
      port.pointee.time.settle(
        used: Int(Double(used) * Double(port.pointee.work) / Double(all)), elapsed: elapsed)
      port.pointee.work = 0
      if port.pointee.time.isSpent { suspend(index) } else { resume(index) }
    }
  }

  private mutating func suspend(_ index: Int) {
    if spent & bit(index) != 0 { return }
    spent |= bit(index)
    let port = port(index)
    port.pointee.counts[.outOfTime] &+= 1
    // It could keep the thread awake by ringing.
    port.pointee.doorbell?.silence()
  }

  private mutating func resume(_ index: Int) {
    if spent & bit(index) == 0 { return }
    spent &= ~bit(index)
    port(index).pointee.doorbell?.listen()
    noteWork(index)
  }
}
