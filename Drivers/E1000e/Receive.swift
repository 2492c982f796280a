import Driver
import Memory
import Rings

/// What the device says of a filled buffer, the same for both formats of descriptor.
private struct Completion {
  var status: UInt32
  var length: UInt32

  /// - Parameter word: the descriptor's second half (7.1.4 legacy, 7.1.5 extended).
  @inline(__always)
  init(_ word: UInt64, isExtended: Bool) {
    if isExtended {
      status = UInt32(truncatingIfNeeded: word)
      length = UInt32(truncatingIfNeeded: word &>> 32) & 0xffff
    } else {
      let errors = UInt32(truncatingIfNeeded: word &>> 40) & 0xff
      status = UInt32(truncatingIfNeeded: word &>> 32) & 0xff | errors &<< 24
      length = UInt32(truncatingIfNeeded: word) & 0xffff
    }
  }

  func has(_ bits: UInt32) -> Bool { status & bits != 0 }
}

extension E1000eQueuePair {
  func receiveIsDone() -> Bool {
    receiveRing.outstanding > 0
      && Completion(receiveRing.completion(), isExtended: isExtended).has(Received.done)
  }

  /// Filled buffers become packets. Those of a packet with an error go straight back to the device.
  public mutating func receive(into burst: inout Burst) throws(DriverError) {
    if let broken { throw .ring(queue: index, broken) }
    // A device that goes on filling buffers that are refused must not keep its driver here.
    var refused = 0
    while receiveRing.outstanding > 0 && burst.room >= Descriptor.maximumSlots && refused < 64 {
      let completion = Completion(receiveRing.completion(), isExtended: isExtended)
      if !completion.has(Received.done) { break }
      if completion.length > UInt32(Self.bufferBytes) {
        let error = RingError.lengthBeyondBuffer(
          id: UInt32(truncatingIfNeeded: receiveRing.cookie() >> 32), length: completion.length,
          posted: UInt32(Self.bufferBytes))
        broken = error
        throw .ring(queue: index, error)
      }
      if !take(completion, into: &burst) { refused &+= 1 }
    }
    if refused > 0 { showReceive() }
  }

  /// - Returns: false where buffers of a packet that is refused are on the ring again.
  private mutating func take(_ completion: Completion, into burst: inout Burst) -> Bool {
    let piece = Descriptor(cookie: receiveRing.take(), length: completion.length)
    partial.append(piece)
    partialBytes &+= Int(piece.length)
    let isWhole = completion.has(Received.endOfPacket)
    if !isWhole && partial.room > 1 && piece.length > 0 && !isDiscarding { return true }
    let isGood =
      isWhole && !isDiscarding && piece.length > 0 && partialBytes >= 14
      && partialBytes <= maximumFrame && !completion.has(Received.frameErrors)
    if isGood {
      deliver(completion, into: &burst)
    } else {
      if !isDiscarding { statistics.receiveErrors &+= 1 }
      isDiscarding = !isWhole
      for index in 0..<partial.count { post(partial[index]) }
    }
    partial.removeAll()
    partialBytes = 0
    return isGood
  }

  private mutating func deliver(_ completion: Completion, into burst: inout Burst) {
    // 7.1.10: checked, and neither checksum wrong. The legacy format alone can say that all that means nothing.
    let isValid =
      completion.has(Received.transportChecked) && !completion.has(Received.checksumErrors)
      && (isExtended || !completion.has(Received.ignoreChecksum))
    let flags: Descriptor.Flags = isValid ? .checksumValid : []
    let last = partial.count &- 1
    for index in 0...last {
      var slot = partial[index]
      slot.flags = index == last ? flags : flags.union(.more)
      burst.append(slot)
    }
    statistics.receivedPackets &+= 1
    statistics.receivedBytes &+= UInt64(partialBytes)
  }
}
