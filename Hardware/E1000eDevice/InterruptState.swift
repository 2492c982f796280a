/// Interrupt registers and timers (82574 datasheet, 7.4 and 10.2.4).
struct InterruptState {
  static var vectorCount: Int { 5 }

  /// ICR without INT_ASSERTED.
  var causes: UInt32 = 0
  /// IMS.
  var mask: UInt32 = 0
  /// Causes that were unmasked and set when interrupts were last looked at: a message follows a rise.
  var seen: UInt32 = 0
  /// Causes whose message waits for EITR.
  var waiting: UInt32 = 0
  var lineIsUp = false
  /// When each vector, and the line, may be signalled again.
  var vectorQuietUntil = InlineArray<5, UInt64>(repeating: 0)
  var lineQuietUntil: UInt64 = 0
  var receive = DelayTimer()
  var transmit = DelayTimer()

  /// RDTR with RADV, or TIDV with TADV: causes that wait for more of their kind, but not forever.
  struct DelayTimer {
    var causes: UInt32 = 0
    var packet: UInt64 = .max
    var absolute: UInt64 = .max

    mutating func add(_ new: UInt32, now: UInt64, delay: UInt32, limit: UInt32) {
      causes |= new
      packet = now + UInt64(delay) * 1024
      if limit != 0 && absolute == .max { absolute = now + UInt64(limit) * 1024 }
    }

    /// - Returns: the causes that are due.
    mutating func expire(_ now: UInt64) -> UInt32 {
      guard causes != 0, now >= min(packet, absolute) else { return 0 }
      defer { self = DelayTimer() }
      return causes
    }
  }
}
