import CLinux
import EmulatedPCI

/// The rings in the driver's memory (RadioLink.md, sections 3 and 5).
extension RadioLinkDevice {
  private static let descriptorBytes: UInt64 = 16
  private static let completionBytes: UInt64 = 32

  // MARK: Receive

  /// Puts a PDU into receive buffers, a piece in each.
  /// - Returns: false where there are too few of them, or the device has failed.
  func deliver(_ pdu: PDU, isAtLowerEdge: Bool) -> Bool {
    if failure != .none { return false }
    let kept = isAtLowerEdge ? 0 : RegisterTable.reserve
    guard UInt64(receive.pending) >= UInt64(pdu.pieces.count) + UInt64(kept) else { return false }
    for (number, piece) in pdu.pieces.enumerated() {
      guard let buffer = readBuffer() else { return false }
      let written = piece.packet.withUnsafeBytes {
        iommu.write(buffer, from: UnsafeRawBufferPointer(rebasing: $0[piece.range]))
      }
      guard written, complete(piece, of: pdu, number: number) else {
        fail(.access)
        return false
      }
      receive.head &+= 1
    }
    publish(receive.head, at: 0)
    receivedPDUs += 1
    notify(RegisterTable.receiveArm)
    return true
  }

  /// The address of the next buffer.
  private func readBuffer() -> UInt64? {
    let size = words[RegisterTable.RingWord.receiveSize]
    let place = UInt64(receive.head & (size - 1))
    let ring = address(RegisterTable.RingWord.receive)
    guard let descriptor = readDescriptor(ring + place * Self.descriptorBytes) else { return nil }
    let length = UInt32(truncatingIfNeeded: descriptor.high)
    let rest = descriptor.high >> 32
    if rest != place {
      violations.add(
        "section 3", "receive descriptor \(place) ends with \(rest), not with its id and 0")
    }
    if Int(length) < options.payloadBytes {
      violations.add("section 3", "a receive buffer of \(length) bytes")
      fail(.descriptor)
      return nil
    }
    return descriptor.low
  }

  private func complete(_ piece: PDUPiece, of pdu: PDU, number: Int) -> Bool {
    let size = words[RegisterTable.RingWord.receiveSize]
    let place = UInt64(receive.head & (size - 1))
    let isLastInPDU = number == pdu.pieces.count - 1
    let flags: UInt64 = (piece.isFirst ? 1 : 0) | (piece.isLast ? 2 : 0) | (isLastInPDU ? 4 : 0)
    let entry = [
      place | UInt64(piece.range.count) << 16 | (pdu.number % 4096) << 32
        | UInt64(number) << 48 | flags << 56,
      UInt64(piece.range.lowerBound), now, 0,
    ]
    let ring = address(RegisterTable.RingWord.completion)
    return entry.withUnsafeBytes { iommu.write(ring + place * Self.completionBytes, from: $0) }
  }

  // MARK: Transmit

  /// The next whole packet of the transmit ring.
  func fetchPacket() -> [UInt8]? {
    while transmit.pending > 0 {
      let size = words[RegisterTable.RingWord.transmitSize]
      let place = UInt64(transmit.head & (size - 1))
      let ring = address(RegisterTable.RingWord.transmit)
      guard let descriptor = readDescriptor(ring + place * Self.descriptorBytes) else { return nil }
      let length = Int(UInt32(truncatingIfNeeded: descriptor.high))
      let flags = descriptor.high >> 32
      if flags & ~1 != 0 {
        violations.add("section 5", "transmit descriptor \(place) has flags \(flags)")
      }
      guard length > 0, outgoing.count + length <= Int(options.mtu) + 14 else {
        violations.add("section 5", "a packet of \(outgoing.count + length) bytes")
        fail(.descriptor)
        return nil
      }
      let start = outgoing.count
      outgoing.append(contentsOf: repeatElement(0, count: length))
      let wasRead = outgoing.withUnsafeMutableBytes {
        iommu.read(descriptor.low, into: UnsafeMutableRawBufferPointer(rebasing: $0[start...]))
      }
      guard wasRead else {
        fail(.access)
        return nil
      }
      transmit.head &+= 1
      if flags & 1 == 0 { continue }
      publish(transmit.head, at: 64)
      defer { outgoing = [] }
      if outgoing.count >= 14 { return outgoing }
      violations.add("section 5", "a packet of \(outgoing.count) bytes")
    }
    if !outgoing.isEmpty {
      violations.add("section 5", "TRANSMIT_TAIL ends inside a packet")
      fail(.descriptor)
    }
    return nil
  }

  // MARK: Memory

  private func readDescriptor(_ iova: UInt64) -> (low: UInt64, high: UInt64)? {
    var bytes: (UInt64, UInt64) = (0, 0)
    guard withUnsafeMutableBytes(of: &bytes, { iommu.read(iova, into: $0) }) else {
      fail(.access)
      return nil
    }
    return (bytes.0, bytes.1)
  }

  /// Moves an index of INDEXES on, after all that it speaks of has been written.
  private func publish(_ value: UInt32, at offset: UInt64) {
    let iova = address(RegisterTable.RingWord.indexes) + offset
    if let word = iommu.pointer(iova, byteCount: 4, .write) {
      release_store32(word, value)
    } else if !withUnsafeBytes(of: value, { iommu.write(iova, from: $0) }) {
      fail(.access)
    }
  }
}
