/// The receiver at the other end of the uplink: puts packets together again, in the order in which they were sent.
struct FarEnd {
  private var held: [UInt64: PDU] = [:]
  private var next: UInt64 = 0
  private var packet: [UInt8] = []

  /// - Returns: the packets that are whole now.
  mutating func take(_ pdu: PDU) -> [[UInt8]] {
    held[pdu.number] = pdu
    var whole: [[UInt8]] = []
    while let pdu = held.removeValue(forKey: next) {
      next += 1
      for piece in pdu.pieces {
        packet += piece.packet[piece.range]
        if piece.isLast {
          whole.append(packet)
          packet = []
        }
      }
    }
    return whole
  }
}
