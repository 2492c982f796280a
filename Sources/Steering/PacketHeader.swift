/// What of a frame's headers decides who gets it and who may send it. A plain value: whoever holds it looks at the frame
/// no more.
///
/// Ethernet II (IEEE 802.3, 3.2) with up to two VLAN tags (IEEE 802.1Q, 9.3), ARP (RFC 826), IPv4 (RFC 791), IPv6 with its
/// extension headers (RFC 8200), ICMP (RFC 792), ICMPv6 (RFC 4443) with neighbour discovery (RFC 4861), and the ports of
/// TCP (RFC 9293), UDP (RFC 768) and SCTP (RFC 9260).
public struct PacketHeader: BitwiseCopyable, Sendable, Equatable {
  /// Bytes of a frame that are looked at, from its first.
  public static let maximumBytes = 128

  /// What kind of frame it is.
  public enum Kind: UInt8, BitwiseCopyable, Sendable {
    /// Cut off within its headers, or with lengths that contradict each other.
    case malformed
    /// With a VLAN tag (IEEE 802.1Q, 9.3; 802.1ad). What stands behind it does not decide who gets it.
    case tagged
    case arp
    case ipv4
    case ipv6
    /// Of another EtherType.
    case other
  }

  /// What it says, where the protocols by which addresses are found and errors told are concerned.
  public enum Message: UInt8, BitwiseCopyable, Sendable {
    case none
    case addressRequest
    case addressReply
    case echoRequest
    case echoReply
    /// An ICMP error; ``target``, ``innerTransport`` and ``innerPort`` name the sender of the packet inside.
    case error
    case neighbourSolicitation
    case neighbourAdvertisement
    case routerAdvertisement
    /// Another message of ICMP.
    case other
  }

  /// Which part of a packet it is.
  public enum Fragment: UInt8, BitwiseCopyable, Sendable {
    case none
    case first
    case later
  }

  /// What has been read, and can be relied on. Of a malformed packet that is only Ethernet and its tags.
  public struct Contents: OptionSet, BitwiseCopyable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let ipv4 = Contents(rawValue: 1)
    public static let ipv6 = Contents(rawValue: 2)
    /// One of both.
    public static let ip = Contents(rawValue: 4)
    /// ``PacketHeader/transport``.
    public static let transport = Contents(rawValue: 8)
    /// ``PacketHeader/sourcePort`` and ``PacketHeader/destinationPort``.
    public static let ports = Contents(rawValue: 16)
    /// ``PacketHeader/messageType`` and ``PacketHeader/messageCode``.
    public static let message = Contents(rawValue: 32)
    /// ``PacketHeader/outerTag``.
    public static let tag = Contents(rawValue: 64)
    /// ``PacketHeader/innerTag``.
    public static let innerTag = Contents(rawValue: 128)
  }

  public internal(set) var kind = Kind.malformed
  /// The same as ``kind`` where there is no VLAN tag, else what stands behind the tags.
  public internal(set) var network = Kind.malformed
  public internal(set) var contents: Contents = []
  /// VLAN tags that are there; at most two are looked behind.
  public internal(set) var tagCount: UInt8 = 0
  /// Priority (3 bits), drop eligibility (1) and VLAN (12), as IEEE 802.1Q, 9.6 has them.
  public internal(set) var outerTag: UInt16 = 0
  public internal(set) var innerTag: UInt16 = 0
  /// Behind the tags that are looked behind: an EtherType from 0x600 on, a length below.
  public internal(set) var etherType: UInt16 = 0
  /// Bytes from the frame's start to what the EtherType names.
  public internal(set) var networkOffset: UInt16 = 0
  /// The differentiated services code point (RFC 2474), 6 bits.
  public internal(set) var differentiatedServices: UInt8 = 0
  /// Type and code of an ICMP or ICMPv6 message.
  public internal(set) var messageType: UInt8 = 0
  public internal(set) var messageCode: UInt8 = 0
  public internal(set) var message = Message.none
  public internal(set) var fragment = Fragment.none
  /// The IP protocol behind all headers that were understood.
  public internal(set) var transport: UInt8 = 0
  /// 48 bits, the first byte on the wire highest.
  public internal(set) var destinationStation: UInt64 = 0
  public internal(set) var sourceStation: UInt64 = 0
  /// The sender's address that an ARP message carries itself.
  public internal(set) var senderStation: UInt64 = 0
  // All addresses of a packet are of one family: said once, the header is short enough to be copied by few instructions.
  private var isIPv6 = false
  private var sourceWords = AddressWords()
  private var destinationWords = AddressWords()
  private var targetWords = AddressWords()
  /// Of TCP, UDP and SCTP, but for a later fragment.
  public internal(set) var sourcePort: UInt16 = 0
  public internal(set) var destinationPort: UInt16 = 0
  public internal(set) var innerTransport: UInt8 = 0
  /// 0 where the packet inside an error has none.
  public internal(set) var innerPort: UInt16 = 0
  /// Bytes from the frame's start to the transport header.
  public internal(set) var transportOffset: UInt16 = 0
  /// Bytes of the TCP header; 0 of anything else.
  public internal(set) var tcpHeaderBytes: UInt16 = 0

  /// Looks at the headers. Each byte is read once at most, none behind the end; whoever shares the memory may change it
  /// meanwhile.
  /// - Parameters:
  ///   - frame: the frame's first byte.
  ///   - byteCount: how many of its bytes are there; those beyond ``maximumBytes`` are not looked at.
  public init(frame: UnsafeRawPointer, byteCount: Int) {
    var reader = HeaderReader(frame, min(byteCount, Self.maximumBytes))
    guard let header = reader.take(14) else { return }
    destinationStation = header.number48(0)
    sourceStation = header.number48(6)
    var type = header.number16(12)
    let isTagged = Self.isTag(type)
    if isTagged {
      kind = .tagged
      guard readTags(&reader, &type) else { return }
    }
    readNetwork(&reader, type)
    if !isTagged { kind = network }
  }

  private struct AddressWords: BitwiseCopyable, Equatable {
    var high: UInt64 = 0
    var low: UInt64 = 0
  }

  /// IP addresses; of ARP, the sender's and the target's.
  public internal(set) var source: NetworkAddress {
    get { address(sourceWords) }
    set { sourceWords = words(newValue) }
  }
  public internal(set) var destination: NetworkAddress {
    get { address(destinationWords) }
    set { destinationWords = words(newValue) }
  }
  /// Whom neighbour discovery asks for or tells of, or who sent the packet inside an error.
  public internal(set) var target: NetworkAddress {
    get { address(targetWords) }
    set { targetWords = words(newValue) }
  }

  private func address(_ words: AddressWords) -> NetworkAddress {
    var address = NetworkAddress(ipv6High: words.high, low: words.low)
    address.isIPv6 = isIPv6
    return address
  }

  private mutating func words(_ address: NetworkAddress) -> AddressWords {
    isIPv6 = address.isIPv6
    return AddressWords(high: address.high, low: address.low)
  }

  /// Whether it carries ports of TCP or UDP that were read.
  @inlinable
  var hasPorts: Bool {
    (transport == 6 || transport == 17) && fragment != .later
  }
}
