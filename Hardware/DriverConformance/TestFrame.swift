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

  public static func isOwn(_ frame: [UInt8]) -> Bool {
    frame.count >= headerBytes && frame[12] == etherType[0] && frame[13] == etherType[1]
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
