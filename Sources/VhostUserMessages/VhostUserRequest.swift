/// Requests of a front-end (QEMU's "Vhost-user Protocol", front-end message types): those that either side here knows.
public enum VhostUserRequest: UInt32, Sendable, CaseIterable {
  case getFeatures = 1
  case setFeatures = 2
  case setOwner = 3
  case resetOwner = 4
  case setMemoryTable = 5
  case setVringSize = 8
  case setVringAddresses = 9
  case setVringBase = 10
  case getVringBase = 11
  case setVringKick = 12
  case setVringCall = 13
  case setVringError = 14
  case getProtocolFeatures = 15
  case setProtocolFeatures = 16
  case getQueueCount = 17
  case setVringEnable = 18
  case getConfiguration = 24
  case setStatus = 39
  case getStatus = 40

  /// The protocol's name, for messages.
  public var name: String {
    switch self {
    case .getFeatures: "GET_FEATURES"
    case .setFeatures: "SET_FEATURES"
    case .setOwner: "SET_OWNER"
    case .resetOwner: "RESET_OWNER"
    case .setMemoryTable: "SET_MEM_TABLE"
    case .setVringSize: "SET_VRING_NUM"
    case .setVringAddresses: "SET_VRING_ADDR"
    case .setVringBase: "SET_VRING_BASE"
    case .getVringBase: "GET_VRING_BASE"
    case .setVringKick: "SET_VRING_KICK"
    case .setVringCall: "SET_VRING_CALL"
    case .setVringError: "SET_VRING_ERR"
    case .getProtocolFeatures: "GET_PROTOCOL_FEATURES"
    case .setProtocolFeatures: "SET_PROTOCOL_FEATURES"
    case .getQueueCount: "GET_QUEUE_NUM"
    case .setVringEnable: "SET_VRING_ENABLE"
    case .getConfiguration: "GET_CONFIG"
    case .setStatus: "SET_STATUS"
    case .getStatus: "GET_STATUS"
    }
  }
}

/// Features of the protocol itself (VHOST_USER_PROTOCOL_F_*).
public struct VhostUserProtocolFeatures: OptionSet, Sendable, Hashable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  /// More than one queue pair; the back-end says how many.
  public static let multiqueue = VhostUserProtocolFeatures(rawValue: 1 << 0)
  /// Any request can ask for an acknowledgement.
  public static let replyAcknowledge = VhostUserProtocolFeatures(rawValue: 1 << 3)
  /// The back-end has the device's configuration space.
  public static let configuration = VhostUserProtocolFeatures(rawValue: 1 << 9)
  /// The back-end has the device's status.
  public static let status = VhostUserProtocolFeatures(rawValue: 1 << 16)
}

/// Bits among the virtio features that belong to vhost and not to the device.
public enum VhostFeature {
  /// VHOST_F_LOG_ALL: for migration.
  public static let logAll: UInt64 = 1 << 26
  /// VHOST_USER_F_PROTOCOL_FEATURES: there are protocol features, and rings start disabled.
  public static let protocolFeatures: UInt64 = 1 << 30
}

/// Bounds on what comes over a socket.
public enum VhostUserLimits {
  /// Regions of a memory table, and so descriptors of a message.
  public static let regions = 8
  /// Bytes of a message's payload: the largest known one, a configuration space of 256 bytes with its header, is less.
  public static let payloadByteCount = 4096
}
