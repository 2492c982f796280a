/// An Ethernet address, in the order of the wire.
public struct MACAddress: Hashable, Sendable {
  /// The six bytes, the first on the wire first.
  public var bytes: (UInt8, UInt8, UInt8, UInt8, UInt8, UInt8)

  /// - Parameter bytes: the first on the wire first.
  public init(_ bytes: (UInt8, UInt8, UInt8, UInt8, UInt8, UInt8)) { self.bytes = bytes }

  /// The same six bytes.
  public var array: [UInt8] { [bytes.0, bytes.1, bytes.2, bytes.3, bytes.4, bytes.5] }
  /// Whether it names a group; broadcast is one (IEEE 802.3, 3.2.3).
  public var isMulticast: Bool { bytes.0 & 1 != 0 }
  /// A random, locally administered one, for a device that has none (virtio 1.2, 5.1.5).
  public static func randomLocal() -> MACAddress {
    let bits = UInt64.random(in: 0...(.max))
    func byte(_ index: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: bits >> (8 * index)) }
    return MACAddress((byte(0) & 0xfc | 2, byte(1), byte(2), byte(3), byte(4), byte(5)))
  }
  /// Two registers as most controllers have them: the first byte lowest, the last two in `high`, where a driver may set
  /// bits above them.
  public var registers: (low: UInt32, high: UInt32) {
    (
      UInt32(bytes.0) | UInt32(bytes.1) << 8 | UInt32(bytes.2) << 16 | UInt32(bytes.3) << 24,
      UInt32(bytes.4) | UInt32(bytes.5) << 8
    )
  }

  /// From two registers; bits above the address are left out.
  public init(low: UInt32, high: UInt32) {
    func byte(_ word: UInt32, _ index: UInt32) -> UInt8 {
      UInt8(truncatingIfNeeded: word >> (8 * index))
    }
    self.init(
      (byte(low, 0), byte(low, 1), byte(low, 2), byte(low, 3), byte(high, 0), byte(high, 1)))
  }

  /// Whether all bytes are 0, which no interface has.
  public var isZero: Bool { array.allSatisfy { $0 == 0 } }

  /// Whether all six bytes are the same.
  public static func == (a: MACAddress, b: MACAddress) -> Bool { a.array == b.array }
  /// Feeds the six bytes to the hasher.
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

  /// Six pairs of lower-case hexadecimal digits, parted by colons.
  public var description: String {
    array.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
  }
}

/// What a driver and its device have agreed on. A plain value; any thread.
public struct NetworkInterface: Sendable, Equatable {
  /// The function's own address.
  public var macAddress: MACAddress
  /// Bytes of payload behind the Ethernet header.
  public var mtu: Int
  /// Whether frames can be sent and received now.
  public var linkIsUp: Bool
  /// Queue pairs that the driver has made, at least 1; never more than it was asked for.
  public var queuePairs: Int
  /// What may be left to the device.
  public var offloads: Offloads
  /// Negotiated features by name, for people.
  public var features: [String]

  /// - Parameters:
  ///   - macAddress: the function's own address.
  ///   - mtu: bytes behind the Ethernet header.
  ///   - linkIsUp: whether there is a link.
  ///   - queuePairs: at least 1.
  ///   - offloads: what may be left to the device.
  ///   - features: names for people.
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
    /// The set's bits.
    public var rawValue: UInt32
    /// - Parameter rawValue: bits; those without a name mean nothing.
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// The device completes a packet's transport checksum (``/Memory/Offload/needsChecksum``).
    public static let transmitChecksum = Offloads(rawValue: 1 << 0)
    /// The device checks transport checksums of what it receives (``/Memory/Descriptor/Flags/checksumValid``).
    public static let receiveChecksum = Offloads(rawValue: 1 << 1)
    /// The device cuts TCP over IPv4 into segments.
    public static let transmitTCP4 = Offloads(rawValue: 1 << 2)
    /// The device cuts TCP over IPv6 into segments.
    public static let transmitTCP6 = Offloads(rawValue: 1 << 3)
    /// The device may join segments of TCP over IPv4 into one packet of up to 64 KiB.
    public static let receiveTCP4 = Offloads(rawValue: 1 << 4)
    /// The same for IPv6.
    public static let receiveTCP6 = Offloads(rawValue: 1 << 5)
  }
}

/// Counters of one queue pair since it was made; they only grow. A plain value; any thread.
public struct QueueStatistics: Sendable, Equatable {
  /// Packets handed up.
  public var receivedPackets: UInt64 = 0
  /// Their bytes, from the Ethernet header on, without the check sequence.
  public var receivedBytes: UInt64 = 0
  /// Packets that the device delivered and the driver refused: too short, too long, bad metadata.
  public var receiveErrors: UInt64 = 0
  /// Packets put on the ring; one that the device cuts into segments counts once.
  public var sentPackets: UInt64 = 0
  /// Their bytes, from the Ethernet header on.
  public var sentBytes: UInt64 = 0
  /// Packets that could not be put on the ring as they were (bad metadata, too many pieces) and were dropped.
  public var sendErrors: UInt64 = 0
  /// Writes to a notification or tail register.
  public var doorbells: UInt64 = 0
  /// All zero.
  public init() {}
}
