import Memory

/// Completes the transport checksum of packets that ask for it (``/Memory/Offload/needsChecksum``), for a device that does
/// not: the Internet checksum (RFC 1071) from a start to the packet's end, whose field already has the pseudo-header's sum
/// in it (virtio 1.2, 5.1.6.2).
public struct InternetChecksum: TransmitTransform, ~Copyable {
  /// Packets whose checksum was completed.
  public private(set) var completed: UInt64 = 0

  /// Nothing completed yet.
  public init() {}

  /// The device is not asked for a checksum any more. A packet that is to be cut into segments is the device's affair.
  @inlinable
  public func remainder(of request: Offload) -> Offload {
    if request.segmentation != .none { return request }
    return Offload(headerLength: request.headerLength, tag: request.tag)
  }

  /// Writes the checksum, where one is asked for; a place for it that is not in the packet is an error.
  public mutating func transform(_ packet: borrowing TransmitPacket) -> Bool {
    let request = packet.request
    if !request.needsChecksum || request.segmentation != .none { return true }
    let start = Int(request.checksumStart)
    let field = start &+ Int(request.checksumOffset)
    if field &+ 2 > packet.byteCount { return false }
    let sum = ~Self.sum(packet, from: start)
    // 0 and 0xffff are the same sum; 0 means that there is none (RFC 768).
    let checksum = sum == 0 ? 0xffff : sum
    packet.store8(UInt8(truncatingIfNeeded: checksum &>> 8), at: field)
    packet.store8(UInt8(truncatingIfNeeded: checksum), at: field &+ 1)
    completed &+= 1
    return true
  }

  /// The one's complement sum of the 16-bit words from a byte to the packet's end, in network order.
  static func sum(_ packet: borrowing TransmitPacket, from start: Int) -> UInt16 {
    var total: UInt32 = 0
    var toSkip = start
    var isOdd = false
    for index in 0..<packet.pieceCount {
      let piece = packet.piece(index)
      let skipped = min(toSkip, piece.byteCount)
      toSkip &-= skipped
      let bytes = piece.dropFirst(skipped)
      let partial = sum(bytes)
      // Where a piece begins inside a word, its bytes change places (RFC 1071, 2 (B)).
      total &+= UInt32(isOdd ? partial.byteSwapped : partial)
      if bytes.byteCount & 1 != 0 { isOdd.toggle() }
    }
    return fold(UInt64(total))
  }

  /// The same of bytes that lie behind each other, which begin a word.
  public static func sum(_ range: DMARange) -> UInt16 {
    // Invariant: all that is read lies in the range. Others may change it meanwhile: then the sum is wrong, and nothing else.
    let bytes = UnsafeRawPointer(range.address)
    let count = range.byteCount
    // Four sums side by side, of words in this machine's order.
    var sums = SIMD4<UInt64>.zero
    var at = 0
    while at &+ 16 <= count {
      let words = (bytes + at).loadUnaligned(as: SIMD4<UInt32>.self)
      sums &+= SIMD4<UInt64>(truncatingIfNeeded: words)
      at &+= 16
    }
    var sum = sums[0] &+ sums[1] &+ sums[2] &+ sums[3]
    while at &+ 2 <= count {
      sum &+= UInt64((bytes + at).loadUnaligned(as: UInt16.self))
      at &+= 2
    }
    if at < count {
      sum &+= UInt64(UInt16(bytes.load(fromByteOffset: at, as: UInt8.self)).littleEndian)
    }
    return UInt16(bigEndian: fold(sum))
  }

  private static func fold(_ sum: UInt64) -> UInt16 {
    var sum = (sum & 0xffff_ffff) &+ sum &>> 32
    while sum > 0xffff { sum = sum & 0xffff &+ sum &>> 16 }
    return UInt16(truncatingIfNeeded: sum)
  }
}
