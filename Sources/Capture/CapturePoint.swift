/// Where packets are seen on their way.
public enum CapturePoint: UInt8, CaseIterable, BitwiseCopyable, Sendable {
  /// As the driver hands them over, before anybody is chosen to get them.
  case wireReceive
  /// As they are handed to the driver.
  case wireTransmit
  /// As an instance gets them.
  case channelReceive
  /// As an instance sends them, before its sender addresses are looked at.
  case channelTransmit
  /// As a stage lets them go, towards the instances.
  case stageReceive
  /// As a stage lets them go, towards the wire.
  case stageTransmit

  /// As people name it.
  public var name: String {
    switch self {
    case .wireReceive: "wire-rx"
    case .wireTransmit: "wire-tx"
    case .channelReceive: "channel-rx"
    case .channelTransmit: "channel-tx"
    case .stageReceive: "stage-rx"
    case .stageTransmit: "stage-tx"
    }
  }

  public init?(name: some StringProtocol) {
    guard let point = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = point
  }

  /// Whether it is one of each instance.
  public var isOfInstances: Bool { self == .channelReceive || self == .channelTransmit }
  /// Whether its packets come from the wire.
  public var isInbound: Bool {
    self == .wireReceive || self == .channelReceive || self == .stageReceive
  }
  /// Whether it is one of each stage, which a record then names as its instance, by place.
  public var isOfStages: Bool { self == .stageReceive || self == .stageTransmit }

  /// The counters of a point in a ring, by number: two of the wire, two for each instance, two for each stage.
  static func counterIndex(_ point: CapturePoint, instance: Int) -> Int {
    switch point {
    case .wireReceive: 0
    case .wireTransmit: 1
    case .channelReceive: 2 &+ (instance & 63)
    case .channelTransmit: 66 &+ (instance & 63)
    case .stageReceive: 130 &+ (instance & 7)
    case .stageTransmit: 138 &+ (instance & 7)
    }
  }
  static let counterCount = 146
}

/// What stands before a packet's bytes in a capture ring: 48 bytes.
@frozen
public struct CaptureRecord: BitwiseCopyable, Sendable, Equatable {
  /// Bytes of the record in the ring, a multiple of 8.
  public var recordBytes: UInt32 = 0
  /// Bytes of the packet that follow.
  public var capturedBytes: UInt32 = 0
  /// Bytes of the packet as it was.
  public var packetBytes: UInt32 = 0
  /// The steering rule that matched, by the number that the supervisor has given it; ``noRule`` for none, and for what is
  /// sent.
  public var rule: UInt32 = noRule
  /// In nanoseconds since 1970 (CLOCK_REALTIME).
  public var time: UInt64 = 0
  /// The instance's identifier, with its slot in the lowest 8 bits; 0 at the wire.
  public var instance: UInt32 = 0
  /// The packet among those of this queue and direction: the same at the wire and at the channels.
  public var number: UInt32 = 0
  /// Where the checksum that is left to the device begins, and where it is stored from there; where they are both 0,
  /// nothing is left.
  public var checksumStart: UInt16 = 0
  public var checksumOffset: UInt16 = 0
  /// Payload bytes of each segment that the device is to cut; 0 for a packet that is sent as it is.
  public var segmentBytes: UInt16 = 0
  /// ``CapturePoint``'s raw value.
  public var point: UInt8 = 0
  private var unused: UInt8 = 0

  public static let noRule = UInt32.max
  public static let byteCount = 48

  public init() {}
}
