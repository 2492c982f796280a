/// Early delivery: of each PDU at most two pieces are kept, those of packets that reach into its neighbours.
extension Reassembly {
  mutating func deliverEarly(_ number: UInt64, _ pieces: inout PieceList) {
    var whole = PieceList()
    let slot = slots + Int(number & slotMask)
    while !pieces.isEmpty {
      let index = store.unlinkFirst(&pieces)
      let flags = store[index].flags
      if !flags.contains(.first) { slot.pointee.head = index }
      if !flags.contains(.last) { slot.pointee.tail = index }
      if flags.contains(.first) && flags.contains(.last) { store.relink(index, to: &whole) }
    }
    let (head, tail) = (slot.pointee.head, slot.pointee.tail)
    endNeighbours(of: number, goesBack: head >= 0, goesOn: tail >= 0)
    // What is complete at the same time goes up in link order.
    if head >= 0 { findBeginning(of: number) }
    while !whole.isEmpty {
      var packet = PieceList()
      store.relink(store.unlinkFirst(&whole), to: &packet)
      finish(&packet, from: number)
    }
    if tail >= 0 && tail != head {
      if delivery == .earlyByFlow {
        slot.pointee.entry = flows.begin(Self.flow(of: store[tail], in: arena), in: number)
      }
      findEnd(from: number)
    }
  }

  /// Packets of the PDUs before and behind that should go on in this one, and do not, are given up.
  private mutating func endNeighbours(of number: UInt64, goesBack: Bool, goesOn: Bool) {
    let before = number &- 1
    if !goesBack && isReceived(before) {
      let tail = slots[Int(before & slotMask)].tail
      if tail >= 0 && store[tail].flags.contains(.first) {
        findEnd(from: before)
      } else if tail >= 0 {
        findBeginning(of: before)
      }
    }
    if !goesOn && isReceived(number &+ 1) { dropRun(from: number &+ 1) }
  }

  /// Looks for the packet that a PDU's head belongs to, from its beginning to its end.
  private mutating func findBeginning(of number: UInt64) {
    var start = number
    for _ in 1..<Self.maximumPieces {
      let before = start &- 1
      if !isReceived(before) {
        // Before the lower edge nothing is missing.
        if before < lowerEdge { dropRun(from: start) }
        return
      }
      let tail = slots[Int(before & slotMask)].tail
      if tail < 0 { break }
      start = before
      if store[tail].flags.contains(.first) {
        findEnd(from: start)
        return
      }
    }
    dropRun(from: start)
  }

  /// Looks for the end of the packet that begins in a PDU's tail.
  private mutating func findEnd(from start: UInt64) {
    var end = start
    var isWhole = false
    for _ in 1..<Self.maximumPieces where !isWhole {
      end &+= 1
      if !isReceived(end) { return }
      let head = slots[Int(end & slotMask)].head
      if head < 0 { break }
      isWhole = store[head].flags.contains(.last)
    }
    let entry = slots[Int(start & slotMask)].entry
    slots[Int(start & slotMask)].entry = -1
    var pieces = takeRun(from: start)
    if isWhole { finish(&pieces, from: start, entry: entry) } else { drop(&pieces, entry: entry) }
  }

  private func isReceived(_ number: UInt64) -> Bool {
    number < lowerEdge &+ window && number &+ Self.history >= lowerEdge
      && slots[Int(number & slotMask)].isReceived
  }

  /// Unlinks the piece that begins a packet in a PDU's tail, and all that have come behind it without a gap.
  private mutating func takeRun(from start: UInt64) -> PieceList {
    var pieces = PieceList()
    let slot = slots + Int(start & slotMask)
    store.relink(slot.pointee.tail, to: &pieces)
    slot.pointee.tail = -1
    takeContinuation(from: start &+ 1, to: &pieces)
    return pieces
  }

  /// A run that has no beginning.
  private mutating func dropRun(from start: UInt64) {
    var pieces = PieceList()
    takeContinuation(from: start, to: &pieces)
    if !pieces.isEmpty { drop(&pieces) }
  }

  private mutating func takeContinuation(from start: UInt64, to pieces: inout PieceList) {
    var number = start
    while isReceived(number) {
      let slot = slots + Int(number & slotMask)
      let head = slot.pointee.head
      if head < 0 { return }
      slot.pointee.head = -1
      let goesOn = slot.pointee.tail == head
      if goesOn { slot.pointee.tail = -1 }
      store.relink(head, to: &pieces)
      if !goesOn { return }
      number &+= 1
    }
  }
}
