import CLinux
import Glibc
import Memory

/// Writes the time at which a packet goes on the ring into it: nanoseconds of a clock, eight bytes in network order, at a
/// fixed place. A packet that ends before that place is sent as it is.
public struct TimeStamp: TransmitTransform, ~Copyable {
  /// Bytes from the frame's start.
  public let offset: Int
  private let clock: clockid_t
  /// Packets that got a time.
  public private(set) var stamped: UInt64 = 0

  /// - Parameters:
  ///   - offset: bytes from the frame's start, at least 0.
  ///   - isMonotonic: the clock that never goes back, since the machine's start; otherwise the time of day since 1970.
  public init(at offset: Int, isMonotonic: Bool = false) {
    precondition(offset >= 0)
    self.offset = offset
    clock = isMonotonic ? CLOCK_MONOTONIC : CLOCK_REALTIME
  }

  /// Writes the time, read without a switch to the kernel (vDSO).
  public mutating func transform(_ packet: borrowing TransmitPacket) -> Bool {
    if packet.byteCount < 8 || offset > packet.byteCount &- 8 { return true }
    var nanoseconds = clock_nanoseconds(clock)
    var at = offset &+ 7
    while at >= offset {
      packet.store8(UInt8(truncatingIfNeeded: nanoseconds), at: at)
      nanoseconds &>>= 8
      at &-= 1
    }
    stamped &+= 1
    return true
  }
}
