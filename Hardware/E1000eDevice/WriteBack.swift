/// A descriptor that the device is about to write back: what ``E1000eDevice/corrupt`` may change.
public struct WriteBack: Sendable {
  public let isReceive: Bool
  public let queue: Int
  /// Descriptors of the ring.
  public let count: Int
  /// Bytes of the buffers, on receive.
  public let bufferBytes: Int
  /// The driver's tail: this descriptor and those up to before the head are not the device's.
  public let tail: Int
  /// Where it goes.
  public var index: Int
  /// The descriptor's two words of eight bytes; status and length are in the second one.
  public var low: UInt64
  public var high: UInt64
  /// Whether the extended receive format is in use (RFCTL.EXSTEN).
  public let isExtended: Bool
  /// Whether it is written at all.
  public var isWritten = true

  /// Bytes that the descriptor says were received.
  public var length: UInt16 {
    get { UInt16(truncatingIfNeeded: high >> (isExtended ? 32 : 0)) }
    set {
      let shift: UInt64 = isExtended ? 32 : 0
      high = high & ~(0xffff << shift) | UInt64(newValue) << shift
    }
  }

  /// EOP, on receive.
  public var endsPacket: Bool {
    get { high >> (isExtended ? 1 : 33) & 1 != 0 }
    set {
      let bit: UInt64 = 1 << (isExtended ? 1 : 33)
      high = newValue ? high | bit : high & ~bit
    }
  }
}

/// Ways in which a faulty or hostile device completes descriptors.
public enum Malformation: Sendable, CaseIterable {
  /// A receive length larger than the buffer.
  case lengthBeyondBuffer
  /// A receive length of 65535.
  case hugeLength
  case zeroLength
  /// The last descriptor of a frame says that more follow.
  case withoutEndOfPacket
  /// DD on a descriptor that the driver has not given.
  case descriptorNotGiven
  /// The whole descriptor reads as ones, as from a device that is gone.
  case allOnes
  /// The completion is never written.
  case missing
  /// Every error bit is set.
  case allErrors

  func apply(to back: inout WriteBack) {
    switch self {
    case .lengthBeyondBuffer: back.length = UInt16(clamping: back.bufferBytes + 1)
    case .hugeLength: back.length = .max
    case .zeroLength: back.length = 0
    case .withoutEndOfPacket: back.endsPacket = false
    case .descriptorNotGiven: back.index = back.tail
    case .allOnes: (back.low, back.high) = (.max, .max)
    case .missing: back.isWritten = false
    case .allErrors: back.high |= back.isExtended ? 0xf7 << 24 : 0xf7 << 40
    }
  }
}
