/// What of a frame's headers decides who gets it and who may send it. A plain value: whoever holds it looks at the frame
/// no more.
///
/// Ethernet II (IEEE 802.3, 3.2), ARP (RFC 826), IPv4 (RFC 791), IPv6 with its extension headers (RFC 8200), ICMP (RFC 792),
/// ICMPv6 (RFC 4443) with neighbour discovery (RFC 4861), and the ports of TCP and UDP.
public struct PacketHeader: BitwiseCopyable, Sendable, Equatable {
  /// Bytes of a frame that are looked at, from its first.
  public static let maximumBytes = 128

  /// What kind of frame it is.
  public enum Kind: UInt8, BitwiseCopyable, Sendable {
    /// Cut off within its headers, or with lengths that contradict each other.
    case malformed
    /// With a VLAN tag (IEEE 802.1Q, 9.3; 802.1ad), behind which nothing is looked at.
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

  public internal(set) var kind = Kind.malformed
  public internal(set) var message = Message.none
  public internal(set) var fragment = Fragment.none
  /// The IP protocol behind all headers that were understood.
  public internal(set) var transport: UInt8 = 0
  /// 48 bits, the first byte on the wire highest.
  public internal(set) var destinationStation: UInt64 = 0
  public internal(set) var sourceStation: UInt64 = 0
  /// The sender's address that an ARP message carries itself.
  public internal(set) var senderStation: UInt64 = 0
  /// IP addresses; of ARP, the sender's and the target's.
  public internal(set) var source = NetworkAddress(ipv4: 0)
  public internal(set) var destination = NetworkAddress(ipv4: 0)
  /// Whom neighbour discovery asks for or tells of, or who sent the packet inside an error.
  public internal(set) var target = NetworkAddress(ipv4: 0)
  /// Of TCP and UDP, but for a later fragment.
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
    guard reader.has(14) else { return }
    destinationStation = reader.take48()
    sourceStation = reader.take48()
    switch reader.take16() {
    case 0x8100, 0x88a8, 0x9100: kind = .tagged
    case 0x0800: if readIPv4(&reader) { kind = .ipv4 }
    case 0x86dd: if readIPv6(&reader) { kind = .ipv6 }
    case 0x0806: if readARP(&reader) { kind = .arp }
    default: kind = .other
    }
  }

  /// Whether it carries ports that were read.
  @inlinable
  var hasPorts: Bool {
    (transport == 6 || transport == 17) && fragment != .later
  }

  private mutating func readARP(_ reader: inout HeaderReader) -> Bool {
    guard reader.has(28) else { return false }
    // Ethernet, IPv4, addresses of six and four bytes.
    guard reader.take32() == 0x0001_0800, reader.take16() == 0x0604 else { return false }
    switch reader.take16() {
    case 1: message = .addressRequest
    case 2: message = .addressReply
    default: return false
    }
    senderStation = reader.take48()
    source = NetworkAddress(ipv4: reader.take32())
    reader.skip(6)
    destination = NetworkAddress(ipv4: reader.take32())
    return true
  }

  private mutating func readIPv4(_ reader: inout HeaderReader) -> Bool {
    guard reader.has(20) else { return false }
    let first = reader.take8()
    let headerBytes = Int(first & 15) &* 4
    guard first &>> 4 == 4, headerBytes >= 20 else { return false }
    reader.skip(1)
    guard Int(reader.take16()) >= headerBytes else { return false }
    reader.skip(2)
    let place = reader.take16()
    setFragment(offset: place & 0x1fff, more: place & 0x2000 != 0)
    reader.skip(1)
    transport = reader.take8()
    reader.skip(2)
    source = NetworkAddress(ipv4: reader.take32())
    destination = NetworkAddress(ipv4: reader.take32())
    guard reader.has(headerBytes &- 20) else { return false }
    reader.skip(headerBytes &- 20)
    return readTransport(&reader)
  }

  private mutating func readIPv6(_ reader: inout HeaderReader) -> Bool {
    guard reader.has(40) else { return false }
    guard reader.take32() &>> 28 == 6 else { return false }
    reader.skip(2)
    var next = reader.take8()
    reader.skip(1)
    source = NetworkAddress(ipv6High: reader.take64(), low: reader.take64())
    destination = NetworkAddress(ipv6High: reader.take64(), low: reader.take64())
    // Each header takes 8 bytes at least of those that are looked at.
    while true {
      switch next {
      case 0, 43, 60:
        guard reader.has(8) else { return false }
        next = reader.take8()
        let byteCount = (Int(reader.take8()) &+ 1) &* 8
        guard reader.has(byteCount &- 2) else { return false }
        reader.skip(byteCount &- 2)
      case 44:
        // One fragment header at most: with two, one could hide what the other says.
        guard reader.has(8), fragment == .none else { return false }
        next = reader.take8()
        reader.skip(1)
        let place = reader.take16()
        reader.skip(4)
        setFragment(offset: place &>> 3, more: place & 1 != 0)
        if fragment == .later {
          transport = next
          return readTransport(&reader)
        }
      default:
        transport = next
        return readTransport(&reader)
      }
    }
  }

  private mutating func setFragment(offset: UInt16, more: Bool) {
    fragment = offset > 0 ? .later : more ? .first : .none
  }

  private mutating func readTransport(_ reader: inout HeaderReader) -> Bool {
    transportOffset = UInt16(truncatingIfNeeded: reader.offset)
    if fragment == .later { return true }
    switch transport {
    case 6:
      guard reader.has(20) else { return false }
      sourcePort = reader.take16()
      destinationPort = reader.take16()
      reader.skip(8)
      tcpHeaderBytes = UInt16(reader.take8() &>> 4) &* 4
      return tcpHeaderBytes >= 20
    case 17:
      guard reader.has(8) else { return false }
      sourcePort = reader.take16()
      destinationPort = reader.take16()
      return true
    case 1 where !source.isIPv6:
      guard reader.has(8) else { return false }
      switch reader.take8() {
      case 0: message = .echoReply
      case 8: message = .echoRequest
      case 3, 4, 5, 11, 12:
        message = .error
        reader.skip(7)
        readInner(&reader)
      default: message = .other
      }
      return true
    case 58 where source.isIPv6:
      return readICMPv6(&reader)
    default: return true
    }
  }

  private mutating func readICMPv6(_ reader: inout HeaderReader) -> Bool {
    guard reader.has(4) else { return false }
    let type = reader.take8()
    switch type {
    case 128: message = .echoRequest
    case 129: message = .echoReply
    case 134: message = .routerAdvertisement
    case 135, 136:
      guard reader.has(23) else { return false }
      message = type == 135 ? .neighbourSolicitation : .neighbourAdvertisement
      reader.skip(7)
      target = NetworkAddress(ipv6High: reader.take64(), low: reader.take64())
    case 1...127:
      guard reader.has(7) else { return false }
      message = .error
      reader.skip(7)
      readInner(&reader)
    default: message = .other
    }
    return true
  }

  /// The packet inside an ICMP error, as far as it is there: its sender is who the error is for.
  private mutating func readInner(_ reader: inout HeaderReader) {
    var skipped = 0
    if source.isIPv6 {
      guard reader.has(40), reader.take32() &>> 28 == 6 else { return }
      reader.skip(2)
      innerTransport = reader.take8()
      reader.skip(1)
      target = NetworkAddress(ipv6High: reader.take64(), low: reader.take64())
      skipped = 16
    } else {
      guard reader.has(20) else { return }
      let first = reader.take8()
      guard first &>> 4 == 4, first & 15 >= 5 else { return }
      reader.skip(5)
      let isLater = reader.take16() & 0x1fff != 0
      reader.skip(1)
      innerTransport = isLater ? 0 : reader.take8()
      if isLater { reader.skip(1) }
      reader.skip(2)
      target = NetworkAddress(ipv4: reader.take32())
      skipped = 4 &+ Int(first & 15) &* 4 &- 20
    }
    guard reader.has(skipped &+ 2) else { return }
    reader.skip(skipped)
    if innerTransport == 6 || innerTransport == 17 { innerPort = reader.take16() }
  }
}

/// Reads bytes one after the other, each once and none behind the end.
struct HeaderReader {
  // Invariant: `byteCount` bytes can be read from `start` on; `offset` is at most `byteCount`.
  private let start: UnsafeRawPointer
  private let byteCount: Int
  private(set) var offset = 0

  init(_ start: UnsafeRawPointer, _ byteCount: Int) {
    self.start = start
    self.byteCount = max(0, byteCount)
  }

  @inline(__always)
  func has(_ count: Int) -> Bool { byteCount &- offset >= count }

  @inline(__always)
  mutating func skip(_ count: Int) {
    precondition(count >= 0 && has(count))
    offset &+= count
  }

  @inline(__always)
  mutating func take8() -> UInt8 {
    precondition(has(1))
    defer { offset &+= 1 }
    return start.load(fromByteOffset: offset, as: UInt8.self)
  }

  @inline(__always)
  mutating func take16() -> UInt16 {
    precondition(has(2))
    defer { offset &+= 2 }
    return UInt16(bigEndian: start.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  @inline(__always)
  mutating func take32() -> UInt32 {
    precondition(has(4))
    defer { offset &+= 4 }
    return UInt32(bigEndian: start.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  @inline(__always)
  mutating func take64() -> UInt64 {
    precondition(has(8))
    defer { offset &+= 8 }
    return UInt64(bigEndian: start.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  @inline(__always)
  mutating func take48() -> UInt64 { UInt64(take32()) &<< 16 | UInt64(take16()) }
}
