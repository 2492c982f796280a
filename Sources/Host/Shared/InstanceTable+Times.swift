import Channel

/// How long packets lie in the channels of instances: one burst of one instance is looked at at a time.
extension InstanceTable {
  /// Marks what the first of those has been given who have been given anything in this turn.
  @usableFromInline
  mutating func mark(_ times: inout PathTimes, at now: UInt64) {
    var given = touched & open
    if given == 0 { return }
    let slot = given.removeFirstInstance()
    times.markChannel(port(slot).pointee.channel.receive.index, slot: slot, at: now)
  }

  /// Marks what the device has been given.
  @usableFromInline
  mutating func markRing(_ times: inout PathTimes, done: UInt32, at now: UInt64) {
    times.markRing(done &+ UInt32(truncatingIfNeeded: inFlight), at: now)
  }

  @usableFromInline
  mutating func look(_ times: inout PathTimes, done: UInt32) {
    let taken = times.markedSlot.flatMap { slot in
      ports[slot].map { $0.pointee.channel.receive.taken }
    }
    times.look(taken: taken, done: done)
  }
}
