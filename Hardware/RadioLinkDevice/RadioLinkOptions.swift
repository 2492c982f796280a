/// How the link is. Times are in nanoseconds of virtual time.
public struct RadioLinkOptions: Sendable {
  public var macAddress: [UInt8] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x57]
  public var mtu: UInt32 = 1500
  /// Payload of a PDU at most, 256 to 1536 bytes.
  public var payloadBytes = 1400
  /// PDUs, a power of two from 16 to 2048.
  public var window: UInt64 = 512
  public var bitsPerSecond: UInt64 = 100_000_000
  /// From the end of a transmission to the arrival.
  public var delay: UInt64 = 4_000_000
  /// From the end of a transmission that was lost to the earliest repetition: a round trip of the link layer.
  public var feedbackDelay: UInt64 = 12_000_000
  /// The probability that a transmission of a PDU is lost, 0 to less than 1.
  public var loss = 0.0
  /// The same seed loses the same transmissions of the same PDUs, whatever the driver does.
  public var seed: UInt64 = 1

  public init() {}
}
