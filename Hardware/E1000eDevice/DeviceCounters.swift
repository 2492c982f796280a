/// What the device has seen since it was made. Every frame of the wire is in exactly one of the received counters.
public struct DeviceCounters: Sendable, Equatable {
  /// Frames that reached the driver's buffers, and their bytes without CRC.
  public var receivedFrames: UInt64 = 0
  public var receivedBytes: UInt64 = 0
  /// Frames for other addresses or VLANs.
  public var filteredFrames: UInt64 = 0
  /// Frames that are too long or too short, or that came damaged.
  public var badFrames: UInt64 = 0
  /// Frames that the full packet buffer had no room for.
  public var missedFrames: UInt64 = 0
  /// Frames that came while the link was down or the receiver off, or that a reset threw away.
  public var unwantedFrames: UInt64 = 0
  public var sentFrames: UInt64 = 0
  /// Of these, what packets were cut into beyond one frame each.
  public var segments: UInt64 = 0
  public var sentBytes: UInt64 = 0
  /// Frames that the wire did not take.
  public var lostFrames: UInt64 = 0
  /// Packets of the driver that make no frame.
  public var malformedPackets: UInt64 = 0
  public var tailWrites: UInt64 = 0
  public var interrupts: UInt64 = 0
  /// Interrupts that ``E1000eDevice/loseInterrupts(_:)`` kept back.
  public var lostInterrupts: UInt64 = 0

  public init() {}

  /// Names by the xstats grammar, for counter pages.
  public var named: [(name: String, value: UInt64)] {
    [
      ("device_rx_packets", receivedFrames), ("device_rx_bytes", receivedBytes),
      ("device_rx_filtered", filteredFrames), ("device_rx_bad", badFrames),
      ("device_rx_missed", missedFrames), ("device_rx_unwanted", unwantedFrames),
      ("device_tx_packets", sentFrames), ("device_tx_bytes", sentBytes),
      ("device_tx_segments", segments), ("device_tx_lost", lostFrames),
      ("device_tx_malformed", malformedPackets),
      ("device_tail_writes", tailWrites), ("device_interrupts", interrupts),
      ("device_interrupts_lost", lostInterrupts),
    ]
  }
}
