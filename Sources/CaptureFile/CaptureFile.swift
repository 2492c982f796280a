import Capture

/// Writes captures as pcapng (IETF draft-ietf-opsawg-pcapng-02), little endian, as bytes for whoever writes files. A section
/// header comes first, then interfaces, packets and statistics in the order in which they are added.
public struct CaptureFile: Sendable {
  /// What has not been taken yet.
  public private(set) var bytes: [UInt8] = []
  public private(set) var interfaceCount = 0

  private enum Block {
    static let section: UInt32 = 0x0a0d_0d0a
    static let interface: UInt32 = 1
    static let statistics: UInt32 = 5
    static let packet: UInt32 = 6
  }
  /// LINKTYPE_ETHERNET.
  private static let ethernet: UInt32 = 1

  /// - Parameter application: what writes the file.
  public init(application: String) {
    block(Block.section) {
      $0 += Self.word(0x1a2b_3c4d) + Self.half(1) + Self.half(0)
      // Of unknown length.
      $0 += [UInt8](repeating: 0xff, count: 8)
      $0 += Self.option(4, application)
      $0 += Self.endOfOptions
    }
  }

  /// Takes what has been written so far.
  public mutating func take() -> [UInt8] {
    defer { bytes = [] }
    return bytes
  }

  /// An Ethernet interface whose times are in nanoseconds.
  /// - Parameters:
  ///   - snapLength: the most bytes of a packet.
  ///   - filter: as it was typed; empty for none.
  /// - Returns: its number.
  public mutating func addInterface(
    _ name: String, description: String, snapLength: UInt32, filter: String
  ) -> Int {
    block(Block.interface) {
      $0 += Self.word(Self.ethernet) + Self.word(snapLength)
      $0 += Self.option(2, name) + Self.option(3, description)
      $0 += Self.option(9, [9])
      if !filter.isEmpty { $0 += Self.option(11, [0] + Array(filter.utf8)) }
      $0 += Self.endOfOptions
    }
    interfaceCount += 1
    return interfaceCount - 1
  }

  /// One packet.
  public struct Packet: Sendable {
    public var interface: Int
    /// In nanoseconds since 1970.
    public var time: UInt64
    /// Bytes as it was.
    public var byteCount: UInt32
    public var isInbound: Bool
    public var queue: UInt32
    public var comment: String?

    public init(
      interface: Int, time: UInt64, byteCount: UInt32, isInbound: Bool, queue: UInt32,
      comment: String? = nil
    ) {
      self.interface = interface
      self.time = time
      self.byteCount = byteCount
      self.isInbound = isInbound
      self.queue = queue
      self.comment = comment
    }
  }

  public mutating func add(_ packet: Packet, _ captured: UnsafeRawBufferPointer) {
    block(Block.packet) {
      $0 += Self.word(UInt32(packet.interface)) + Self.time(packet.time)
      $0 += Self.word(UInt32(captured.count)) + Self.word(packet.byteCount)
      $0 += captured
      Self.pad(&$0, captured.count)
      if let comment = packet.comment { $0 += Self.option(1, comment) }
      $0 += Self.option(2, Self.word(packet.isInbound ? 1 : 2))
      $0 += Self.option(6, Self.word(packet.queue))
      $0 += Self.endOfOptions
    }
  }

  /// What became of an interface's packets.
  /// - Parameters:
  ///   - start: of the capture, in nanoseconds since 1970.
  ///   - end: the same.
  ///   - written: packets that were written here.
  public mutating func addStatistics(
    of interface: Int, from start: UInt64, to end: UInt64, _ counts: CaptureCounts, written: UInt64
  ) {
    block(Block.statistics) {
      $0 += Self.word(UInt32(interface)) + Self.time(end)
      $0 += Self.option(2, Self.time(start)) + Self.option(3, Self.time(end))
      $0 += Self.option(4, Self.long(counts.seen)) + Self.option(5, Self.long(counts.dropped))
      $0 += Self.option(6, Self.long(counts.matched)) + Self.option(8, Self.long(written))
      $0 += Self.endOfOptions
    }
  }

  // MARK: Bytes

  private mutating func block(_ type: UInt32, _ body: (inout [UInt8]) -> Void) {
    let start = bytes.count
    bytes += Self.word(type) + Self.word(0)
    body(&bytes)
    let length = Self.word(UInt32(bytes.count - start + 4))
    bytes.replaceSubrange(start + 4..<start + 8, with: length)
    bytes += length
  }

  private static let endOfOptions: [UInt8] = [0, 0, 0, 0]

  /// Text longer than an option holds is cut.
  private static func option(_ code: UInt16, _ text: String) -> [UInt8] {
    option(code, Array(text.utf8.prefix(60_000)))
  }
  private static func option(_ code: UInt16, _ value: [UInt8]) -> [UInt8] {
    var bytes = half(code) + half(UInt16(value.count)) + value
    pad(&bytes, value.count)
    return bytes
  }
  private static func pad(_ bytes: inout [UInt8], _ count: Int) {
    bytes += [UInt8](repeating: 0, count: (4 - count % 4) % 4)
  }

  /// The upper half first.
  private static func time(_ nanoseconds: UInt64) -> [UInt8] {
    word(UInt32(truncatingIfNeeded: nanoseconds >> 32))
      + word(UInt32(truncatingIfNeeded: nanoseconds))
  }
  private static func half(_ value: UInt16) -> [UInt8] { [UInt8(value & 0xff), UInt8(value >> 8)] }
  private static func word(_ value: UInt32) -> [UInt8] {
    half(UInt16(truncatingIfNeeded: value)) + half(UInt16(value >> 16))
  }
  private static func long(_ value: UInt64) -> [UInt8] {
    word(UInt32(truncatingIfNeeded: value)) + word(UInt32(truncatingIfNeeded: value >> 32))
  }
}
