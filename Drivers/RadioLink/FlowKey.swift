/// What tells a packet's flow: both addresses, and for TCP and UDP both ports. Fragments and other protocols go by their
/// addresses alone; all that is not IP is one flow.
struct FlowKey: BitwiseCopyable, Equatable {
  private var source: (UInt64, UInt64) = (0, 0)
  private var destination: (UInt64, UInt64) = (0, 0)
  /// IP version, and where there are ports the protocol and both of them.
  private var rest: UInt64 = 0

  /// - Parameter bytes: the packet from its Ethernet header on, as far as its first piece goes. Whatever they say, the
  ///   result is some flow.
  init(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= 14 else { return }
    switch Self.word16(bytes, 12) {
    case 0x0800: readIPv4(bytes)
    case 0x86dd: readIPv6(bytes)
    default: break
    }
  }

  /// RFC 791, 3.1.
  private mutating func readIPv4(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= 34 else { return }
    source.0 = Self.word64(bytes, 26) >> 32
    destination.0 = Self.word64(bytes, 26) & 0xffff_ffff
    let headerBytes = Int(bytes[14] & 15) * 4
    let isFragment = Self.word16(bytes, 20) & 0x3fff != 0
    rest = 4
    if !isFragment && headerBytes >= 20 { readPorts(bytes, bytes[23], at: 14 + headerBytes) }
  }

  /// RFC 8200, 3. A packet with an extension header is one of another protocol.
  private mutating func readIPv6(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= 54 else { return }
    source = (Self.word64(bytes, 22), Self.word64(bytes, 30))
    destination = (Self.word64(bytes, 38), Self.word64(bytes, 46))
    rest = 6
    readPorts(bytes, bytes[20], at: 54)
  }

  private mutating func readPorts(_ bytes: UnsafeRawBufferPointer, _ number: UInt8, at offset: Int)
  {
    let (tcp, udp): (UInt8, UInt8) = (6, 17)
    guard number == tcp || number == udp, bytes.count >= offset + 4 else { return }
    let ports = UInt64(Self.word16(bytes, offset)) << 16 | UInt64(Self.word16(bytes, offset + 2))
    rest |= UInt64(number) << 8 | ports << 16
  }

  private static func word16(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> UInt16 {
    UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1])
  }

  private static func word64(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> UInt64 {
    UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  static func == (a: FlowKey, b: FlowKey) -> Bool {
    a.source == b.source && a.destination == b.destination && a.rest == b.rest
  }

  /// For tables: equal keys have equal values.
  var hash: UInt64 {
    var sum = rest &* 0x9e37_79b9_7f4a_7c15
    func add(_ word: UInt64) {
      sum = (sum ^ word) &* 0xbf58_476d_1ce4_e5b9
      sum ^= sum >> 31
    }
    add(source.0)
    add(source.1)
    add(destination.0)
    add(destination.1)
    return sum
  }
}
