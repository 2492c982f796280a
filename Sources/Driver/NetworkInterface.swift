/// An Ethernet address, in the order of the wire.
public struct MACAddress: Hashable, Sendable {
  public var bytes: (UInt8, UInt8, UInt8, UInt8, UInt8, UInt8)

  public init(_ bytes: (UInt8, UInt8, UInt8, UInt8, UInt8, UInt8)) { self.bytes = bytes }

  public var array: [UInt8] { [bytes.0, bytes.1, bytes.2, bytes.3, bytes.4, bytes.5] }
  public var isMulticast: Bool { bytes.0 & 1 != 0 }
  public var isZero: Bool { array.allSatisfy { $0 == 0 } }

  public static func == (a: MACAddress, b: MACAddress) -> Bool { a.array == b.array }
  public func hash(into hasher: inout Hasher) { hasher.combine(array) }
}

extension MACAddress: LosslessStringConvertible {
  /// Six pairs of hexadecimal digits, parted by colons.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 6 else { return nil }
    var b: [UInt8] = []
    for part in parts {
      guard part.utf8.count == 2, let value = UInt8(part, radix: 16) else { return nil }
      b.append(value)
    }
    bytes = (b[0], b[1], b[2], b[3], b[4], b[5])
  }

  public var description: String {
    array.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
  }
}

/// What a driver and its device have agreed on.
public struct NetworkInterface: Sendable, Equatable {
  public var macAddress: MACAddress
  /// Bytes of payload behind the Ethernet header.
  public var mtu: Int
  public var linkIsUp: Bool
  public var queuePairs: Int
  public var offloads: Offloads
  /// Negotiated features by name, for people.
  public var features: [String]

  public init(
    macAddress: MACAddress, mtu: Int = 1500, linkIsUp: Bool = true, queuePairs: Int = 1,
    offloads: Offloads = [], features: [String] = []
  ) {
    self.macAddress = macAddress
    self.mtu = mtu
    self.linkIsUp = linkIsUp
    self.queuePairs = queuePairs
    self.offloads = offloads
    self.features = features
  }

  /// What may be left to the device. Raw values cross process boundaries: they do not change.
  public struct Offloads: OptionSet, Sendable, Hashable {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let transmitChecksum = Offloads(rawValue: 1 << 0)
    public static let receiveChecksum = Offloads(rawValue: 1 << 1)
    public static let transmitTCP4 = Offloads(rawValue: 1 << 2)
    public static let transmitTCP6 = Offloads(rawValue: 1 << 3)
    public static let receiveTCP4 = Offloads(rawValue: 1 << 4)
    public static let receiveTCP6 = Offloads(rawValue: 1 << 5)
  }
}

/// Counters of one queue pair; only ever grow.
public struct QueueStatistics: Sendable, Equatable {
  public var receivedPackets: UInt64 = 0
  public var receivedBytes: UInt64 = 0
  /// Packets that the device delivered and the driver refused: too short, too long, bad metadata.
  public var receiveErrors: UInt64 = 0
  public var sentPackets: UInt64 = 0
  public var sentBytes: UInt64 = 0
  /// Packets that could not be put on the ring as they were (bad metadata, too many pieces) and were dropped.
  public var sendErrors: UInt64 = 0
  public var doorbells: UInt64 = 0
  public init() {}
}
