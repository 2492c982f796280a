/// A protocol of one's own: where it stands, how long its header is, what follows, and fields that rules can ask for.
///
/// Headers are read within the first ``PacketHeader/maximumBytes`` bytes of a frame, eight of one's own at most; one that is
/// cut off is not there. Of a protocol that occurs twice in a packet, fields are those of the first.
public struct ProtocolDefinition: Sendable, Hashable {
  /// 1 to 32 letters, digits, `-` and `_`, and no name of a protocol that is known.
  public var name: String
  public var layer: Layer
  /// The EtherType, the IP protocol, the destination port, or the number in the header below by which it is known.
  public var type: UInt64
  public var headerLength: HeaderLength
  public var next: Next?
  public var fields: [Field]

  public init(
    _ name: String, above layer: Layer, type: UInt64, headerLength: HeaderLength, next: Next? = nil,
    fields: [Field] = []
  ) {
    self.name = name
    self.layer = layer
    self.type = type
    self.headerLength = headerLength
    self.next = next
    self.fields = fields
  }

  /// What it stands above.
  public enum Layer: Sendable, Hashable {
    /// With or without VLAN tags.
    case ethernet
    case ipv4
    case ipv6
    /// Either.
    case ip
    case udp
    case tcp
    /// Another protocol of one's own, whose ``ProtocolDefinition/next`` has numbers of its own.
    case own(String)
  }

  /// Bytes of the header.
  public enum HeaderLength: Sendable, Hashable {
    case fixed(Int)
    /// The masked bits, moved to the right end, times `scale`, and `add` more.
    case variable(BitField, scale: Int, add: Int)
  }

  /// Which header follows.
  public struct Next: Sendable, Hashable {
    public var number: BitField
    /// Who gives the numbers.
    public var numbers: Numbers

    public init(_ number: BitField, _ numbers: Numbers) {
      self.number = number
      self.numbers = numbers
    }
  }

  public enum Numbers: Sendable, Hashable {
    /// Where no IP header came before, the packet is what that EtherType says.
    case etherType
    /// Where no transport header came before, the packet's ports are those of that IP protocol.
    case ipProtocol
    /// Protocols that are defined above the one of this name.
    case own(String)
  }

  /// Bytes of a header, in network order.
  public struct BitField: Sendable, Hashable {
    /// Bytes from the header's start.
    public var offset: Int
    /// 1 to 8.
    public var byteCount: Int
    /// Bits that count; the value is moved right until the lowest of them is the lowest.
    public var mask: UInt64

    /// - Parameter mask: nil for all bits.
    public init(offset: Int, byteCount: Int, mask: UInt64? = nil) {
      self.offset = offset
      self.byteCount = byteCount
      self.mask = mask ?? Self.allBits(byteCount)
    }

    static func allBits(_ byteCount: Int) -> UInt64 {
      byteCount >= 8 ? .max : 1 << UInt64(8 * max(0, byteCount)) - 1
    }

    var end: Int { offset + byteCount }
    /// The highest value.
    var maximum: UInt64 { mask == 0 ? 0 : mask >> UInt64(mask.trailingZeroBitCount) }
  }

  /// A field that rules ask for as `PROTOCOL.FIELD`.
  public struct Field: Sendable, Hashable {
    public var name: String
    public var bits: BitField

    public init(_ name: String, _ bits: BitField) {
      self.name = name
      self.bits = bits
    }
  }
}
