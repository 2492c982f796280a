import Glibc

/// A limit for waiting on a device: none is waited for without one.
///
///     let deadline = Deadline(milliseconds: 100)
///     while isBusy {
///       if deadline.hasPassed { throw … }
///       deadline.pause()
///     }
public struct Deadline: Sendable {
  private let end: UInt64

  /// So long from now.
  public init(milliseconds: Int) {
    end = Self.now() &+ UInt64(milliseconds) &* 1_000_000
  }

  public var hasPassed: Bool { Self.now() >= end }

  /// Lets others run between two looks at the device.
  public func pause() { sched_yield() }

  private static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
