/// Statistics registers (82574 datasheet, 10.2.7): each sticks at its largest value, and reading clears it.
struct Statistics {
  static let crcErrors = 0x04000
  static let missed = 0x04010
  static let lengthErrors = 0x04040
  static let resumeSent = 0x0404c
  static let pauseSent = 0x04054
  static let receivedBySize = 0x0405c
  static let goodReceived = 0x04074
  static let broadcastReceived = 0x04078
  static let multicastReceived = 0x0407c
  static let goodSent = 0x04080
  static let goodOctetsReceived = 0x04088
  static let goodOctetsSent = 0x04090
  static let noBuffers = 0x040a0
  static let undersized = 0x040a4
  static let oversized = 0x040ac
  static let octetsReceived = 0x040c0
  static let octetsSent = 0x040c8
  static let received = 0x040d0
  static let sent = 0x040d4
  static let sentBySize = 0x040d8
  static let multicastSent = 0x040f0
  static let broadcastSent = 0x040f4
  static let segmentationContexts = 0x040f8
  static let segmentationFailures = 0x040fc
  static let interruptsAsserted = 0x04100
  static let receiverOverruns = 0x04124

  static let names: [(offset: Int, name: String)] = [
    (0x04000, "CRCERRS"), (0x04004, "ALGNERRC"), (0x0400c, "RXERRC"), (0x04010, "MPC"),
    (0x04014, "SCC"), (0x04018, "ECOL"), (0x0401c, "MCC"), (0x04020, "LATECOL"),
    (0x04028, "COLC"), (0x04030, "DC"), (0x04034, "TNCRS"), (0x0403c, "CEXTERR"),
    (0x04040, "RLEC"), (0x04048, "XONRXC"), (0x0404c, "XONTXC"), (0x04050, "XOFFRXC"),
    (0x04054, "XOFFTXC"), (0x04058, "FCRUC"), (0x0405c, "PRC64"), (0x04060, "PRC127"),
    (0x04064, "PRC255"), (0x04068, "PRC511"), (0x0406c, "PRC1023"), (0x04070, "PRC1522"),
    (0x04074, "GPRC"), (0x04078, "BPRC"), (0x0407c, "MPRC"), (0x04080, "GPTC"),
    (0x04088, "GORCL"), (0x0408c, "GORCH"), (0x04090, "GOTCL"), (0x04094, "GOTCH"),
    (0x040a0, "RNBC"), (0x040a4, "RUC"), (0x040a8, "RFC"), (0x040ac, "ROC"), (0x040b0, "RJC"),
    (0x040b4, "MGTPRC"), (0x040b8, "MGTPDC"), (0x040bc, "MGTPTC"), (0x040c0, "TORL"),
    (0x040c4, "TORH"), (0x040c8, "TOTL"), (0x040cc, "TOTH"), (0x040d0, "TPR"), (0x040d4, "TPT"),
    (0x040d8, "PTC64"), (0x040dc, "PTC127"), (0x040e0, "PTC255"), (0x040e4, "PTC511"),
    (0x040e8, "PTC1023"), (0x040ec, "PTC1522"), (0x040f0, "MPTC"), (0x040f4, "BPTC"),
    (0x040f8, "TSCTC"), (0x040fc, "TSCTFC"), (0x04100, "IAC"), (0x04104, "ICRXPTC"),
    (0x04108, "ICRXATC"), (0x0410c, "ICTXPTC"), (0x04110, "ICTXATC"), (0x04118, "ICTXQEC"),
    (0x0411c, "ICTXQMTC"), (0x04120, "ICRXDMTC"), (0x04124, "ICRXOC"),
  ]

  private static let first = 0x04000
  private static let wide: Set<Int> = [
    goodOctetsReceived, goodOctetsSent, octetsReceived, octetsSent,
  ]
  private var words = [UInt32](repeating: 0, count: 0x80)

  mutating func count(_ offset: Int, by amount: Int = 1) {
    let index = (offset - Self.first) / 4
    if Self.wide.contains(offset) {
      let old = UInt64(words[index + 1]) << 32 | UInt64(words[index])
      let (sum, overflow) = old.addingReportingOverflow(UInt64(amount))
      let new = overflow ? UInt64.max : sum
      words[index] = UInt32(truncatingIfNeeded: new)
      words[index + 1] = UInt32(new >> 32)
    } else {
      let (sum, overflow) = words[index].addingReportingOverflow(UInt32(clamping: amount))
      words[index] = overflow ? .max : sum
    }
  }

  /// A frame of `bytes` bytes, from destination address to CRC, in the six size classes that begin at `offset`.
  mutating func countSize(_ offset: Int, bytes: Int) {
    let classes = [64, 127, 255, 511, 1023]
    count(offset + 4 * (classes.firstIndex { bytes <= $0 } ?? classes.count))
  }

  /// Reads and clears. Of a register pair the low half stays until the high half is read.
  mutating func read(_ offset: Int) -> UInt32 {
    let index = (offset - Self.first) / 4
    let value = words[index]
    if Self.wide.contains(offset) { return value }
    words[index] = 0
    if Self.wide.contains(offset - 4) { words[index - 1] = 0 }
    return value
  }

  mutating func reset() { for index in words.indices { words[index] = 0 } }
}
