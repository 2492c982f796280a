/// Registers of BAR 0 (RadioLink.md, section 2).
enum RadioLinkRegister {
  static let id = 0x000
  static let version = 0x004
  static let control = 0x008
  static let status = 0x00c
  static let failure = 0x010
  static let addressLow = 0x014
  static let addressHigh = 0x018
  static let mtu = 0x01c
  static let payloadBytes = 0x020
  static let window = 0x024
  static let ringLimit = 0x028
  static let events = 0x030
  static let arm = 0x034
  static let receiveRing = 0x040
  static let completionRing = 0x048
  static let transmitRing = 0x050
  static let indexes = 0x058
  static let receiveSize = 0x060
  static let transmitSize = 0x064
  static let receiveTail = 0x080
  static let transmitTail = 0x084

  static let byteCount: UInt64 = 0x100
}

/// Values and bits of the registers (section 2).
enum RadioLinkValue {
  static let id: UInt32 = 0x314b_4c52
  static let version: UInt32 = 1
  static let enable: UInt32 = 1 << 0
  static let reset: UInt32 = 1 << 31
  static let linkUp: UInt32 = 1 << 0
  static let failed: UInt32 = 1 << 2
  static let armReceive: UInt32 = 1 << 0
  static let armTransmit: UInt32 = 1 << 1
}

/// Sizes, and what lies where in shared memory (sections 2, 3 and 5).
enum RadioLinkLayout {
  static let descriptorBytes = 16
  static let completionBytes = 32
  static let indexBytes = 128
  static let completedIndex = 0
  static let sentIndex = 64
  static let smallestRing = 32
  static let transmitEnd: UInt64 = 1 << 32
}

/// What the device wrote about one piece (section 3), copied once.
struct RadioLinkCompletion {
  let identifier: UInt16
  let length: UInt16
  let sequence: UInt16
  let number: UInt8
  let flags: Flags
  let segmentOffset: UInt16

  struct Flags: OptionSet, BitwiseCopyable {
    var rawValue: UInt8
    static let first = Flags(rawValue: 1 << 0)
    static let last = Flags(rawValue: 1 << 1)
    static let lastInPDU = Flags(rawValue: 1 << 2)
    static let all = Flags(rawValue: 0b111)
  }

  /// - Parameters:
  ///   - low: bytes 0 to 7.
  ///   - high: bytes 8 to 15.
  init(low: UInt64, high: UInt64) {
    identifier = UInt16(truncatingIfNeeded: low)
    length = UInt16(truncatingIfNeeded: low &>> 16)
    sequence = UInt16(truncatingIfNeeded: low &>> 32)
    number = UInt8(truncatingIfNeeded: low &>> 48)
    flags = Flags(rawValue: UInt8(truncatingIfNeeded: low &>> 56))
    segmentOffset = UInt16(truncatingIfNeeded: high)
  }
}

/// Sequence numbers (section 4).
enum RadioLinkSequence {
  static let count: UInt64 = 4096
  static let mask = count - 1
  static let largestWindow = 2048
  static let piecesPerPDU = 16
}
