import CLinux
import Glibc

/// The end of a bounded wait for a device: none is waited for without one. Any thread.
///
///     let limit = Deadline(milliseconds: 100)
///     while isBusy {
///       if limit.hasPassed { throw … }
///       limit.pause()
///     }
public struct Deadline: Sendable {
  private let end: UInt64

  /// - Parameter milliseconds: from now, on the monotonic clock.
  public init(milliseconds: Int) { end = Self.now() + UInt64(milliseconds) * 1_000_000 }

  /// Whether more time than that has gone by. A system call without a switch to the kernel (vDSO).
  public var hasPassed: Bool { Self.now() > end }

  /// Leaves the processor to others for a moment, before a register is read again.
  public func pause() { cpu_pause() }

  /// Nanoseconds. Set before anything waits, by programs in which time is a device's to decide: fuzz targets.
  nonisolated(unsafe) package static var clock: @Sendable () -> UInt64 = {
    monotonic_nanoseconds()
  }

  private static func now() -> UInt64 { clock() }
}
