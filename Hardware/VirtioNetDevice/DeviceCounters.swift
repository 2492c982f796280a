/// What the device has seen. Every frame of the wire is in exactly one of the received counters, every chain of the
/// driver in exactly one of the sent ones.
public struct DeviceCounters: Sendable, Equatable {
  /// Frames that reached the driver, and their bytes without header.
  public var receivedFrames: UInt64 = 0
  public var receivedBytes: UInt64 = 0
  /// Frames for other addresses.
  public var filteredFrames: UInt64 = 0
  /// Frames larger than the driver's buffers.
  public var oversizedFrames: UInt64 = 0
  /// Frames that came before DRIVER_OK or while the link was down.
  public var unwantedFrames: UInt64 = 0
  public var sentFrames: UInt64 = 0
  public var sentBytes: UInt64 = 0
  /// Frames that the wire did not take.
  public var lostFrames: UInt64 = 0
  /// Chains that hold no frame, or one with a bad header.
  public var malformedChains: UInt64 = 0
  public var notifications: UInt64 = 0
  public var interrupts: UInt64 = 0
  public var commands: UInt64 = 0

  public init() {}

  /// Names by the xstats grammar, for counter pages.
  public var named: [(name: String, value: UInt64)] {
    [
      ("device_rx_packets", receivedFrames), ("device_rx_bytes", receivedBytes),
      ("device_rx_filtered", filteredFrames), ("device_rx_oversized", oversizedFrames),
      ("device_rx_unwanted", unwantedFrames), ("device_tx_packets", sentFrames),
      ("device_tx_bytes", sentBytes), ("device_tx_lost", lostFrames),
      ("device_tx_malformed", malformedChains), ("device_notifications", notifications),
      ("device_interrupts", interrupts), ("device_commands", commands),
    ]
  }
}
