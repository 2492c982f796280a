/// What is given away of a memory handle: 128 bits from the kernel's random source. It is of use to the handle's receiver
/// only; to anybody else it is like a number that was guessed.
public struct HandleID: Hashable, Sendable {
  /// The first 16 digits.
  public let high: UInt64
  /// The last 16 digits.
  public let low: UInt64

  /// A new one, which nobody can foresee.
  public init() {
    var random = SystemRandomNumberGenerator()
    high = random.next()
    low = random.next()
  }

  /// From its halves, the first digits first.
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// - Parameter text: 32 hexadecimal digits, as ``text`` gives them.
  public init?(_ text: some StringProtocol) {
    guard let bytes = Hexadecimal.bytes(text), bytes.count == 16 else { return nil }
    high = bytes[..<8].reduce(0) { $0 << 8 | UInt64($1) }
    low = bytes[8...].reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// 32 hexadecimal digits.
  public var text: String {
    let bytes = [high, low].flatMap { word in
      (0..<8).map { UInt8(truncatingIfNeeded: word >> (56 - 8 * $0)) }
    }
    return Hexadecimal.text(bytes)
  }

  /// In the same time wherever the two differ. A table of them is keyed at random by the standard library.
  public static func == (a: HandleID, b: HandleID) -> Bool {
    (a.high ^ b.high) | (a.low ^ b.low) == 0
  }
}

/// Bytes as text, two digits each.
enum Hexadecimal {
  private static let digits = Array("0123456789abcdef".utf8)

  static func text(_ bytes: some Sequence<UInt8>) -> String {
    var text: [UInt8] = []
    for byte in bytes {
      text.append(digits[Int(byte >> 4)])
      text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// Nil where the text is anything but pairs of lowercase digits.
  static func bytes(_ text: some StringProtocol) -> [UInt8]? {
    var bytes: [UInt8] = []
    var pending: UInt8?
    for digit in text.utf8 {
      let value: UInt8
      switch digit {
      case 0x30...0x39: value = digit - 0x30
      case 0x61...0x66: value = digit - 0x61 + 10
      default: return nil
      }
      if let first = pending {
        bytes.append(first << 4 | value)
        pending = nil
      } else {
        pending = value
      }
    }
    return pending == nil ? bytes : nil
  }
}
