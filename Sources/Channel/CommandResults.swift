/// What an instance has received and sent since it attached.
@frozen
public struct InstanceStatistics: BitwiseCopyable, Sendable, Equatable {
  public var receivedPackets: UInt64
  public var receivedBytes: UInt64
  /// Packets for the instance that it had no room, no segment or no budget for.
  public var receiveDropped: UInt64
  public var sentPackets: UInt64
  public var sentBytes: UInt64
  /// Packets that were not sent because their source is not the instance's.
  public var sendRefused: UInt64

  @inlinable
  public init(
    receivedPackets: UInt64 = 0, receivedBytes: UInt64 = 0, receiveDropped: UInt64 = 0,
    sentPackets: UInt64 = 0, sentBytes: UInt64 = 0, sendRefused: UInt64 = 0
  ) {
    self.receivedPackets = receivedPackets
    self.receivedBytes = receivedBytes
    self.receiveDropped = receiveDropped
    self.sentPackets = sentPackets
    self.sentBytes = sentBytes
    self.sendRefused = sendRefused
  }

  @inlinable
  public init(_ values: InlineArray<6, UInt64>) {
    self.init(
      receivedPackets: values[0], receivedBytes: values[1], receiveDropped: values[2],
      sentPackets: values[3], sentBytes: values[4], sendRefused: values[5])
  }

  /// As a completion carries them.
  @inlinable public var values: InlineArray<6, UInt64> {
    [receivedPackets, receivedBytes, receiveDropped, sentPackets, sentBytes, sendRefused]
  }
}

/// Of the NIC.
@frozen
public struct LinkState: BitwiseCopyable, Sendable, Equatable {
  public var isUp: Bool
  /// In Mbit/s; 0 where the device does not say.
  public var speed: UInt64
  /// In bytes.
  public var mtu: UInt64

  @inlinable
  public init(isUp: Bool, speed: UInt64 = 0, mtu: UInt64) {
    self.isUp = isUp
    self.speed = speed
    self.mtu = mtu
  }

  @inlinable
  public init(_ values: InlineArray<6, UInt64>) {
    self.init(isUp: values[0] != 0, speed: values[1], mtu: values[2])
  }

  @inlinable public var values: InlineArray<6, UInt64> { [isUp ? 1 : 0, speed, mtu, 0, 0, 0] }
}

/// The server's clocks, in nanoseconds.
@frozen
public struct CommandTime: BitwiseCopyable, Sendable, Equatable {
  /// CLOCK_MONOTONIC: that of credentials' expiry.
  public var monotonic: UInt64
  /// CLOCK_REALTIME: since 1970.
  public var realtime: UInt64

  @inlinable
  public init(monotonic: UInt64, realtime: UInt64) {
    self.monotonic = monotonic
    self.realtime = realtime
  }

  @inlinable
  public init(_ values: InlineArray<6, UInt64>) {
    self.init(monotonic: values[0], realtime: values[1])
  }

  @inlinable public var values: InlineArray<6, UInt64> { [monotonic, realtime, 0, 0, 0, 0] }
}

/// Memory of a handle, as the instance that registered it may name it in descriptors.
@frozen
public struct MemoryRegistration: BitwiseCopyable, Sendable, Equatable {
  /// Where it begins, in bytes from the start of the instance's arena.
  public var position: UInt64
  public var byteCount: UInt64

  @inlinable
  public init(position: UInt64, byteCount: UInt64) {
    self.position = position
    self.byteCount = byteCount
  }

  @inlinable
  public init(_ values: InlineArray<6, UInt64>) {
    self.init(position: values[0], byteCount: values[1])
  }

  @inlinable public var values: InlineArray<6, UInt64> { [position, byteCount, 0, 0, 0, 0] }
}

/// Names a memory handle: 128 bits that cannot be guessed.
@frozen
public struct MemoryHandleID: BitwiseCopyable, Sendable, Hashable {
  public var high: UInt64
  public var low: UInt64

  @inlinable
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }
}
