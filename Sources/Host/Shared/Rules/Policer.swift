import CLinux
import Steering

/// A limit on what passes by a rule, for all queues together: the generic cell rate algorithm (ITU-T I.371, annex A). One word
/// says when all that has passed so far would have passed at the rate; what is too far ahead of the clock does not pass.
///
/// Time is in parts of a nanosecond and wraps round; differences do not.
struct Policer: BitwiseCopyable {
  // Invariant: a word that outlives all tables that have it (``PolicerState``).
  let due: UnsafeMutableRawPointer
  /// What a packet takes, and each of its bytes.
  let perPacket: UInt64
  let perByte: UInt64
  /// How far ahead of the clock it may be.
  let tolerance: Int64

  /// Parts of a nanosecond in one.
  static let scale: UInt64 = 256

  /// Any thread.
  /// - Parameter now: nanoseconds of the monotonic clock.
  /// - Returns: whether a packet passes.
  func allows(byteCount: Int, now: UInt64) -> Bool {
    let now = now &* Self.scale
    let cost = perPacket &+ perByte &* UInt64(truncatingIfNeeded: byteCount)
    // Bounded: others may be ahead of us each time.
    for _ in 0..<64 {
      let before = acquire_load64(due)
      let ahead = Int64(bitPattern: before &- now)
      if ahead > tolerance { return false }
      if atomic_compare_exchange64(due, before, (ahead > 0 ? before : now) &+ cost) != 0 {
        return true
      }
    }
    return false
  }
}

/// How far a rule's limit is, kept when rules around it change.
final class PolicerState {
  let due: UnsafeMutableRawPointer

  init(now: UInt64) {
    due = .allocate(byteCount: 64, alignment: 64)
    due.storeBytes(of: now &* Policer.scale, as: UInt64.self)
  }

  deinit { due.deallocate() }

  /// - Parameter limit: what the rule says. Without a burst, what comes in 100 ms, and at least ten packets.
  func policer(_ limit: RateLimit) -> Policer {
    let second = 1_000_000_000 * Policer.scale
    let isPackets = limit.unit == .packets
    let cost = max(1, isPackets ? second / limit.rate : 8 * second / limit.rate)
    let burst = limit.burst ?? max(isPackets ? 10 : 15_000, limit.rate / (isPackets ? 10 : 80))
    let (tolerance, isTooMuch) = (burst - 1).multipliedReportingOverflow(by: cost)
    return Policer(
      due: due, perPacket: isPackets ? cost : 0, perByte: isPackets ? 0 : cost,
      tolerance: isTooMuch ? .max / 2 : Int64(min(tolerance, UInt64(Int64.max / 2))))
  }
}
