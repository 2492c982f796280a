/// Tokens that come at a rate, up to a burst: exact in whole numbers, however often it is asked.
///
/// A bit costs 10^9 tokens, so that a nanosecond brings as many as the rate has bits a second.
public struct TokenBucket: Sendable {
  /// Bits a second.
  public let rate: UInt64
  private let capacity: Int64
  private var level: Int64
  private var time: UInt64?

  private static let bit: Int64 = 1_000_000_000
  /// The most bytes of a burst: their tokens fit.
  public static let maximumBurst: UInt64 = 1 << 29

  /// - Parameters:
  ///   - rate: bits a second, from 1 on.
  ///   - burst: bytes, from 1 to ``maximumBurst``. It is full to begin with.
  public init(rate: UInt64, burst: UInt64) {
    precondition(rate > 0 && burst > 0 && burst <= Self.maximumBurst)
    self.rate = rate
    capacity = Int64(burst) * 8 * Self.bit
    level = capacity
  }

  /// Tokens come. Time that goes back brings none.
  public mutating func advance(to now: UInt64) {
    defer { time = max(now, time ?? now) }
    guard let time, now > time else { return }
    let missing = UInt64(capacity - level)
    let (gained, overflow) = (now - time).multipliedReportingOverflow(by: rate)
    level = overflow || gained >= missing ? capacity : level + Int64(gained)
  }

  private func needed(_ byteCount: Int) -> Int64 {
    min(Int64(byteCount) * 8 * Self.bit, capacity)
  }

  /// Takes the tokens of a packet. One that is longer than the burst goes when the bucket is full, and what it cost beyond
  /// that is missing afterwards: the rate stays.
  /// - Parameter byteCount: up to 2^24.
  /// - Returns: false where there are not as many.
  public mutating func take(_ byteCount: Int) -> Bool {
    guard level >= needed(byteCount) else { return false }
    level -= Int64(byteCount) * 8 * Self.bit
    return true
  }

  /// Nanoseconds until a packet can go.
  public func delay(_ byteCount: Int) -> UInt64 {
    let missing = needed(byteCount) - level
    return missing <= 0 ? 0 : (UInt64(missing) + rate - 1) / rate
  }
}
