/// Why a driver host is replaced by another one.
public enum RestartReason: String, CaseIterable, Sendable {
  /// Its process has ended.
  case ended
  /// One of its threads does not go on.
  case hung
  /// It has said that the device failed: a broken ring, DEVICE_NEEDS_RESET, registers that read as all ones.
  case device
  /// The IOMMU has stopped the device.
  case iommuFault = "iommu_fault"
  /// Somebody has asked for it.
  case requested
}

/// A driver host that has taken the place of another: when what was done, in nanoseconds of the monotonic clock.
public struct HostRestart: Sendable {
  public let reason: RestartReason
  /// The supervisor has seen that the one before was no more.
  public let detected: UInt64
  /// The device was reset and does no more DMA.
  public internal(set) var reset: UInt64 = 0
  /// The new process was about to be started: the device knows its memory.
  public internal(set) var spawned: UInt64 = 0
  /// Its program has begun, after the dynamic linker.
  public internal(set) var begun: UInt64 = 0
  /// It has given up its rights.
  public internal(set) var confined: UInt64 = 0
  /// Its driver has set the device up.
  public internal(set) var ready: UInt64 = 0

  init(_ reason: RestartReason, detected: UInt64) {
    self.reason = reason
    self.detected = detected
  }

  /// The parts, in order, in nanoseconds.
  public var parts: [(name: String, nanoseconds: UInt64)] {
    [
      ("device reset", reset &- detected), ("memory", spawned &- reset),
      ("process", begun &- spawned), ("confinement", confined &- begun),
      ("driver", ready &- confined),
    ]
  }
}
