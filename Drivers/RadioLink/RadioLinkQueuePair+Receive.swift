import Driver
import Memory
import Rings

extension RadioLinkQueuePair {
  /// Completions become PDUs, PDUs become packets.
  public mutating func receive(into burst: inout Burst) throws(DriverError) {
    if let violation { throw violation.error }
    var isDrained = handUp(&burst)
    let index = rings.indexes.loadAcquiring32(at: RadioLinkLayout.completedIndex)
    if index &- completed > posted &- completed {
      throw broken(
        .completions(counted: index, after: completed, outstanding: outstanding))
    }
    while completed != index && isDrained {
      let isWholePDU = try takeCompletion()
      if isWholePDU { isDrained = handUp(&burst) }
    }
    postRefused()
    announceBuffers()
  }

  /// Whole packets go to the burst.
  /// - Returns: false where the burst has no room for the next one.
  private mutating func handUp(_ burst: inout Burst) -> Bool {
    while !reassembly.ready.isEmpty {
      if burst.room < Reassembly.maximumPieces { return false }
      var isLast = false
      while !isLast {
        let piece = reassembly.store.takeFirst(&reassembly.ready)
        isLast = piece.flags.contains(.last)
        var slot = Descriptor(
          segment: piece.segment, offset: piece.offset, length: UInt32(piece.length))
        if !isLast { slot.flags.insert(.more) }
        burst.append(slot)
        counts.receivedBytes &+= UInt64(piece.length)
      }
      counts.receivedPackets &+= 1
    }
    return true
  }

  /// The next completion (section 3). What cannot be true of the ring breaks it; what cannot be true of the PDU costs
  /// that PDU.
  /// - Returns: whether a PDU is whole now.
  private mutating func takeCompletion() throws(DriverError) -> Bool {
    let place = Int(completed & rings.receiveMask)
    let at = place &* RadioLinkLayout.completionBytes
    let completion = RadioLinkCompletion(
      low: rings.completions.load64(at: at), high: rings.completions.load64(at: at &+ 8))
    let buffer = buffers[place]
    if Int(completion.identifier) != place {
      throw broken(.place(named: completion.identifier, expected: place))
    }
    if completion.length == 0 || UInt32(completion.length) > buffer.length {
      throw broken(.length(completion.length, bufferBytes: buffer.length))
    }
    completed &+= 1
    let piece = Piece(
      segment: buffer.segment, offset: buffer.offset, room: buffer.length,
      length: completion.length, segmentOffset: completion.segmentOffset, flags: completion.flags)
    return take(piece, number: Int(completion.number), sequence: completion.sequence)
  }

  private mutating func take(_ piece: Piece, number: Int, sequence: UInt16) -> Bool {
    let continues = number == arriving.count && (number == 0 || sequence == arrivingSequence)
    if !continues {
      // The PDU before is not whole, or this one lacks its beginning.
      reassembly.statistics.malformedPDUs &+= 1
      reassembly.store.move(&arriving, to: &reassembly.refused)
      if number != 0 {
        reassembly.store.append(piece, to: &reassembly.refused)
        return false
      }
    }
    arrivingSequence = sequence
    reassembly.store.append(piece, to: &arriving)
    let isLast = piece.flags.contains(.lastInPDU)
    if !isLast && arriving.count < RadioLinkSequence.piecesPerPDU { return false }
    let isKnown = piece.flags.isSubset(of: .all)
    if isLast && isKnown && UInt64(sequence) < RadioLinkSequence.count {
      reassembly.accept(sequence: sequence, arriving)
      arriving = PieceList()
    } else {
      reassembly.statistics.malformedPDUs &+= 1
      reassembly.store.move(&arriving, to: &reassembly.refused)
    }
    return true
  }
}
