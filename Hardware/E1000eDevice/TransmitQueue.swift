/// A transmit queue: its ring, the context that was last set, and the packet that is being put together.
struct TransmitQueue {
  var ring: DescriptorRing
  var context: TransmitContext?
  var packet = Packet()

  init(_ index: Int) { ring = DescriptorRing(index == 0 ? "TX0" : "TX1", section: "10.2.6") }

  struct Packet {
    var bytes: [UInt8] = []
    var isOpen = false
    var isExtended = false
    /// The first descriptor asked for segmentation.
    var isSegmented = false
    /// POPTS of the first descriptor.
    var inserts: UInt32 = 0
    /// CSS of the first descriptor.
    var checksumStart = 0
    /// VLE's tag and IFCS: of the first descriptor where it is segmented, else of the last one.
    var vlan: UInt16?
    var insertsFCS = true
    /// What is wrong with it is recorded; it is not sent.
    var isBad = false
  }
}

/// A transmit descriptor (82574 datasheet, 7.2.9 to 7.2.11).
struct TransmitDescriptor {
  enum Kind { case legacy, context, data, unknown }

  let words: Descriptor
  init(_ words: Descriptor) { self.words = words }

  private var command: UInt32 { UInt32(truncatingIfNeeded: words.high >> 24 & 0xff) }

  var kind: Kind {
    guard command >> 5 & 1 != 0 else { return .legacy }
    switch words.high >> 20 & 15 {
    case 0: return .context
    case 1: return .data
    default: return .unknown
    }
  }
  var address: UInt64 { words.low }
  var byteCount: Int {
    Int(truncatingIfNeeded: words.high & (kind == .legacy ? 0xffff : 0xf_ffff))
  }
  var endsPacket: Bool { command & 1 != 0 }
  var insertsFCS: Bool { command >> 1 & 1 != 0 }
  /// IC, in a legacy descriptor.
  var insertsChecksum: Bool { command >> 2 & 1 != 0 }
  /// TSE, in an extended one.
  var segments: Bool { command >> 2 & 1 != 0 }
  var reportsStatus: Bool { command >> 3 & 1 != 0 }
  var insertsVLAN: Bool { command >> 6 & 1 != 0 }
  var delaysInterrupt: Bool { command >> 7 & 1 != 0 }
  /// CSO and CSS, in a legacy descriptor.
  var checksumOffset: Int { Int(words.high >> 16 & 0xff) }
  var checksumStart: Int { Int(words.high >> 40 & 0xff) }
  /// POPTS, in a data descriptor.
  var options: UInt32 { UInt32(truncatingIfNeeded: words.high >> 40 & 0xff) }
  var vlan: UInt16 { UInt16(truncatingIfNeeded: words.high >> 48) }

  static let insertIP: UInt32 = 1 << 0
  static let insertTransport: UInt32 = 1 << 1
}

/// A context descriptor (82574 datasheet, 7.2.10): where checksums begin, go and end; and how to segment.
struct TransmitContext {
  var ipStart, ipOffset, ipEnd: Int
  var transportStart, transportOffset, transportEnd: Int
  var payloadBytes, headerBytes, segmentBytes: Int
  var isTCP, isIPv4, segments: Bool

  init(_ words: Descriptor) {
    func field(_ word: UInt64, _ shift: UInt64, _ bits: UInt64) -> Int {
      Int(word >> shift & ((1 << bits) - 1))
    }
    ipStart = field(words.low, 0, 8)
    ipOffset = field(words.low, 8, 8)
    ipEnd = field(words.low, 16, 16)
    transportStart = field(words.low, 32, 8)
    transportOffset = field(words.low, 40, 8)
    transportEnd = field(words.low, 48, 16)
    payloadBytes = field(words.high, 0, 20)
    isTCP = words.high >> 24 & 1 != 0
    isIPv4 = words.high >> 25 & 1 != 0
    segments = words.high >> 26 & 1 != 0
    headerBytes = field(words.high, 40, 8)
    segmentBytes = field(words.high, 48, 16)
  }

  /// What is impossible about it; nil where nothing is.
  var fault: String? {
    if segments {
      if segmentBytes <= 16 { return "an MSS of \(segmentBytes)" }
      if headerBytes < transportStart + (isTCP ? 20 : 8) {
        return "an HDRLEN of \(headerBytes), and the L4 header begins at \(transportStart)"
      }
      if headerBytes + segmentBytes + 4 > E1000eDevice.longestFrame {
        return "frames of \(headerBytes) and \(segmentBytes) bytes"
      }
      if payloadBytes == 0 { return "a PAYLEN of 0" }
    }
    if ipEnd != 0 && (ipEnd < ipStart || ipOffset + 1 > ipEnd) || ipOffset < ipStart {
      return "an IP checksum from \(ipStart) to \(ipEnd) that goes to \(ipOffset)"
    }
    if transportEnd != 0 && transportEnd < transportOffset + 1 || transportOffset < transportStart {
      return "a checksum from \(transportStart) to \(transportEnd) that goes to \(transportOffset)"
    }
    return nil
  }

  /// What makes the prototype header of a segmentation impossible; nil where nothing does.
  var headerFault: String? {
    if ipStart + (isIPv4 ? 20 : 40) > transportStart {
      return "IP begins at \(ipStart) and L4 at \(transportStart)"
    }
    if ipOffset + 2 > headerBytes || ipEnd >= headerBytes || transportOffset + 2 > headerBytes {
      return "checksums at \(ipOffset) and \(transportOffset) in a header of \(headerBytes)"
    }
    return nil
  }
}
