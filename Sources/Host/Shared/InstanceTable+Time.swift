/// Those whose time is limited: what is done for them is measured, and who has used up his time waits for the next grant.
/// Where nobody is limited no clock is read.
extension InstanceTable {
  /// Milliseconds that the thread may sleep at most.
  @usableFromInline var sleepLimit: Int32 { spent == 0 ? 1000 : 1 }

  /// - Returns: when work for the instance begins; 0 where it is not measured.
  @inline(__always)
  func begin(_ index: Int) -> UInt64 { limited & bit(index) == 0 ? 0 : monotonicNanoseconds() }

  /// Work for the instance has ended that began at `start`.
  @inline(__always)
  mutating func end(_ index: Int, since start: UInt64) {
    if start != 0 { charge(index, Int(truncatingIfNeeded: monotonicNanoseconds() &- start)) }
  }

  @inline(never)
  private mutating func charge(_ index: Int, _ nanoseconds: Int) {
    guard open & bit(index) != 0 else { return }
    let port = port(index)
    port.pointee.time.spend(nanoseconds)
    if port.pointee.time.isSpent && spent & bit(index) == 0 {
      spent |= bit(index)
      polled &= ~bit(index)
      port.pointee.counts[.outOfTime] &+= 1
      // It could keep the thread awake by ringing.
      port.pointee.doorbell?.silence()
    }
  }

  /// - Returns: when the driver gets what was gathered; 0 where that is not measured.
  @usableFromInline
  func beginDriving() -> UInt64 { limited & gathered == 0 ? 0 : monotonicNanoseconds() }

  /// The driver's work for what was gathered is its senders', each for its slots.
  @usableFromInline
  mutating func endDriving(since start: UInt64) {
    if start == 0 { return }
    let elapsed = Int(truncatingIfNeeded: monotonicNanoseconds() &- start)
    var set = limited & gathered
    while set != 0 {
      let index = set.removeFirstInstance()
      guard let port = ports[index] else { continue }
      charge(index, elapsed &* port.pointee.gatheredSlots / max(1, gatheredSlots))
    }
  }

  /// Grants time once a period.
  @inline(never)
  mutating func grantTime() {
    let now = monotonicNanoseconds()
    let elapsed = now &- granted
    if elapsed < TimeBudget.period { return }
    granted = now
    var set = limited
    while set != 0 {
      let index = set.removeFirstInstance()
      let port = port(index)
      port.pointee.time.grant(after: elapsed)
      if spent & bit(index) != 0 && !port.pointee.time.isSpent {
        spent &= ~bit(index)
        port.pointee.doorbell?.listen()
        noteWork(index)
      }
    }
  }
}
