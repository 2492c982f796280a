/// What of a packet rules can ask for, as words of 64 bits.
///
///     0  destination station (bits 0 to 47), first VLAN tag (48 to 63)
///     1  source station, second VLAN tag
///     2  source address, high       3  low
///     4  destination address, high  5  low
///     6  destination port (0 to 15), source port, EtherType, IP protocol (48 to 55)
///     7  contents (0 to 7), fragment (8 and 9), DSCP (16 to 21), ICMP type (24 to 31), ICMP code (32 to 39)
///     8  headers of one's own that are there (0 to 31), fields of theirs (32 to 47)
///     9  and on: those fields
///
/// What the contents do not have is anything.
enum PacketKey {
  static let destinationStation = 0
  static let sourceStation = 1
  static let source = 2
  static let destination = 4
  static let ports = 6
  static let contents = 7
  static let headers = 8
  static let fields = 9
  static let plainWords = 8
  static let maximumWords = fields + RuleSet.maximumFields

  static let fragmentShift: UInt64 = 8
  static let servicesShift: UInt64 = 16
  static let messageTypeShift: UInt64 = 24
  static let messageCodeShift: UInt64 = 32

  /// - Parameter key: at least ``plainWords``.
  @inline(__always)
  static func write(_ packet: PacketHeader, to key: UnsafeMutablePointer<UInt64>) {
    key[0] = packet.destinationStation | UInt64(packet.outerTag) &<< 48
    key[1] = packet.sourceStation | UInt64(packet.innerTag) &<< 48
    key[2] = packet.source.high
    key[3] = packet.source.low
    key[4] = packet.destination.high
    key[5] = packet.destination.low
    key[6] =
      UInt64(packet.destinationPort) | UInt64(packet.sourcePort) &<< 16
      | UInt64(packet.etherType) &<< 32 | UInt64(packet.transport) &<< 48
    key[7] =
      UInt64(packet.contents.rawValue) | UInt64(packet.fragment.rawValue) &<< 8
      | UInt64(packet.differentiatedServices) &<< 16 | UInt64(packet.messageType) &<< 24
      | UInt64(packet.messageCode) &<< 32
  }
}

/// A condition on one word: of the masked bits, a value from `low` to `low + span`.
struct WordTest: BitwiseCopyable, Hashable {
  var mask: UInt64
  var low: UInt64
  var span: UInt64
  var word: UInt64

  init(_ word: Int, mask: UInt64, low: UInt64, span: UInt64 = 0) {
    self.word = UInt64(word)
    self.mask = mask
    self.low = low
    self.span = span
  }

  @inline(__always)
  func holds(_ key: UnsafePointer<UInt64>) -> Bool {
    (key[Int(truncatingIfNeeded: word)] & mask) &- low <= span
  }
}
