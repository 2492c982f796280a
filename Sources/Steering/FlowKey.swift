/// The headers of a plain packet as a few words: TCP or UDP in IPv4 or IPv6, without VLAN tags, options, extension headers
/// or fragments, as nearly all packets are. Packets with equal keys are equal in all that claims ask for, and in all that
/// rules ask for but protocols of one's own.
@frozen
public struct FlowKey: BitwiseCopyable, Equatable, Sendable {
  /// Destination station, and the first bytes of the source station.
  @usableFromInline let stations: UInt64
  /// The rest of that, EtherType, version, and the differentiated services code point. 0 of no packet.
  @usableFromInline let kind: UInt64
  /// Both ports, and the IP protocol.
  @usableFromInline let ports: UInt64
  /// IPv4: both addresses, then zeroes. IPv6: source, destination.
  @usableFromInline let addresses: (UInt64, UInt64, UInt64, UInt64)

  /// Equal to that of no packet.
  @inlinable
  public init() { (stations, kind, ports, addresses) = (0, 0, 0, (0, 0, 0, 0)) }

  /// Looks at the headers; nil where they are not plain, or not right.
  /// - Parameters:
  ///   - frame: the frame's first byte.
  ///   - byteCount: how many of its bytes are there; none behind them is read.
  @inlinable @inline(__always)
  public init?(frame: UnsafeRawPointer, byteCount: Int) {
    let word = { (offset: Int) in frame.loadUnaligned(fromByteOffset: offset, as: UInt64.self) }
    // Bytes of the Ethernet header (IEEE 802.3, 3.2).
    let network = 14
    guard byteCount >= network + 20 + 8 else { return nil }
    let begin = UInt64(bigEndian: word(8))
    let middle = UInt64(bigEndian: word(16))
    let transport: UInt8
    let offset: Int
    if begin &>> 8 & 0xff_ffff == 0x08_0045 {
      // Neither an offset nor more fragments, and a length that holds the header (RFC 791, 3.1).
      guard middle & 0x3fff_0000 == 0, middle &>> 48 >= 20 else { return nil }
      transport = UInt8(truncatingIfNeeded: middle)
      offset = network + 20
      kind = begin & ~0x3
      addresses = (word(26), 0, 0, 0)
    } else if begin &>> 12 & 0xf_ffff == 0x8_6dd6 {
      guard byteCount >= network + 40 + 8 else { return nil }
      transport = UInt8(truncatingIfNeeded: middle &>> 24)
      offset = network + 40
      kind = begin & ~0x3f
      addresses = (word(22), word(30), word(38), word(46))
    } else {
      return nil
    }
    if transport == 6 {
      // All of a TCP header without options, which says that it is not shorter (RFC 9293, 3.1).
      guard byteCount >= offset + 20,
        frame.load(fromByteOffset: offset + 12, as: UInt8.self) >= 0x50
      else { return nil }
    } else if transport != 17 {
      return nil
    }
    ports =
      UInt64(frame.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
      | UInt64(transport) &<< 32
    stations = word(0)
  }

  @inlinable @inline(__always)
  public static func == (one: FlowKey, other: FlowKey) -> Bool {
    if one.addresses.0 != other.addresses.0 || one.ports != other.ports || one.kind != other.kind
      || one.stations != other.stations
    {
      return false
    }
    return one.addresses.1 == other.addresses.1 && one.addresses.2 == other.addresses.2
      && one.addresses.3 == other.addresses.3
  }

  /// A number whose bits are all mixed: keys that differ have any two of them.
  /// - Parameter seed: two numbers at random, so that who sends does not know which flows have the same.
  @inlinable @inline(__always)
  public func hash(_ seed: (UInt64, UInt64)) -> UInt64 {
    let ends = addresses.0 &+ addresses.1 &* 3 &+ addresses.2 &* 5 &+ addresses.3 &* 7
    let product = (ends ^ seed.0).multipliedFullWidth(by: ports ^ seed.1)
    let mixed = (product.high ^ product.low) &* 0x9e37_79b9_7f4a_7c15
    return mixed ^ mixed &>> 32
  }
}
