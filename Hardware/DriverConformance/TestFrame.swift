import Driver

/// Ethernet frames whose every byte is known from their number and length.
public enum TestFrame {
  /// An ethertype for local experiments (IEEE 802, 9.2.3).
  public static let etherType: [UInt8] = [0x88, 0xb5]
  static let farEnd: [UInt8] = [0x02, 0, 0, 0, 0, 0x01]
  /// Bytes before the contents: addresses, ethertype, number, length.
  private static let headerBytes = 22

  public static func make(_ number: Int, byteCount: Int, to destination: [UInt8]) -> [UInt8] {
    precondition(byteCount >= headerBytes)
    var frame = destination + farEnd + etherType
    for shift in [24, 16, 8, 0] { frame.append(UInt8(truncatingIfNeeded: number >> shift)) }
    for shift in [24, 16, 8, 0] { frame.append(UInt8(truncatingIfNeeded: byteCount >> shift)) }
    frame.reserveCapacity(byteCount)
    for index in headerBytes..<byteCount {
      frame.append(UInt8(truncatingIfNeeded: index &* 7 &+ number &* 13 &+ index >> 8))
    }
    return frame
  }

  /// Whether it is a frame that the suite has had sent: nothing else goes to that address.
  public static func isOwn(_ frame: [UInt8]) -> Bool { Array(frame.prefix(6)) == farEnd }

  /// A UDP datagram over IPv4 whose checksum is left to be finished: only the pseudo-header's sum is there.
  static func unfinished(byteCount: Int, from source: [UInt8]) -> [UInt8] {
    var frame = make(0, byteCount: byteCount, to: farEnd)
    let length = byteCount - 14
    frame.replaceSubrange(6..<14, with: source + [0x08, 0x00])
    let header: [UInt8] =
      [0x45, 0, UInt8(length >> 8), UInt8(length & 0xff), 0, 1, 0, 0, 64, 17, 0, 0]
      + [10, 9, 0, 2, 10, 9, 0, 1]
    frame.replaceSubrange(14..<34, with: header)
    store(~sum(header[...]), at: 24, in: &frame)
    let datagram = length - 20
    let ports: [UInt8] = [0x30, 0x39, 0x00, 0x09]
    frame.replaceSubrange(34..<38, with: ports)
    store(UInt16(datagram), at: 38, in: &frame)
    let pseudo = header[12...] + [0, 17, UInt8(datagram >> 8), UInt8(datagram & 0xff)]
    store(sum(pseudo), at: 40, in: &frame)
    return frame
  }

  /// The same with its checksum finished.
  static func finished(_ unfinished: [UInt8]) -> [UInt8] {
    var frame = unfinished
    store(~sum(frame[34...]), at: 40, in: &frame)
    return frame
  }

  /// The Internet checksum's sum (RFC 1071), folded.
  private static func sum(_ bytes: ArraySlice<UInt8>) -> UInt16 {
    var total: UInt32 = 0
    for (index, byte) in bytes.enumerated() {
      total += index % 2 == 0 ? UInt32(byte) << 8 : UInt32(byte)
    }
    while total > 0xffff { total = total & 0xffff + total >> 16 }
    return UInt16(total)
  }

  private static func store(_ value: UInt16, at offset: Int, in frame: inout [UInt8]) {
    frame[offset] = UInt8(value >> 8)
    frame[offset + 1] = UInt8(value & 0xff)
  }
}

/// Why a driver does not conform.
public struct Nonconformance: Error, CustomStringConvertible {
  public var description: String
  init(_ description: String) { self.description = description }
}

/// A check that cannot be made here, and why.
struct NotPossible: Error { var reason: String }

func require(_ condition: Bool, _ what: @autoclosure () -> String) throws {
  if !condition { throw Nonconformance(what()) }
}
