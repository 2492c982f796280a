import Memory

/// A receive buffer that the device has filled: a part of one packet.
struct Piece: BitwiseCopyable {
  var segment: UInt32 = 0
  var offset: UInt32 = 0
  /// Bytes of the whole buffer.
  var room: UInt32 = 0
  var length: UInt16 = 0
  /// Bytes of the packet before this piece, as the device says.
  var segmentOffset: UInt16 = 0
  /// The piece behind this one in its list; -1 for none.
  var next: Int32 = -1
  var flags: RadioLinkCompletion.Flags = []
  var isUsed = false

  /// The buffer as it was posted.
  var buffer: Descriptor { Descriptor(segment: segment, offset: offset, length: room) }
}

/// Pieces in order, linked in a ``PieceStore``.
struct PieceList: BitwiseCopyable {
  var first: Int32 = -1
  var last: Int32 = -1
  var count = 0
  var bytes = 0

  var isEmpty: Bool { count == 0 }
}

/// A fixed number of pieces, made once: the bound of all that the driver keeps. One thread.
struct PieceStore: ~Copyable, @unchecked Sendable {
  // Invariant: `pieces` has `capacity` initialised elements. Those that are not used are linked from `free`.
  private let pieces: UnsafeMutablePointer<Piece>
  let capacity: Int
  private var free: Int32
  private(set) var usedCount = 0

  init(capacity: Int) {
    pieces = .allocate(capacity: capacity)
    for index in 0..<capacity {
      var piece = Piece()
      piece.next = index + 1 < capacity ? Int32(index + 1) : -1
      (pieces + index).initialize(to: piece)
    }
    free = 0
    self.capacity = capacity
  }

  deinit { pieces.deallocate() }

  subscript(index: Int32) -> Piece {
    precondition(index >= 0 && index < capacity)
    return pieces[Int(index)]
  }

  /// Only the first piece of a PDU may continue a packet, only the last one may be continued.
  func isWellFormed(_ pieces: PieceList) -> Bool {
    var index = pieces.first
    while index >= 0 {
      let flags = self[index].flags
      if index != pieces.first && !flags.contains(.first) { return false }
      if index != pieces.last && !flags.contains(.last) { return false }
      index = self[index].next
    }
    return true
  }

  /// Bytes of the packet that pieces make.
  /// - Returns: nil where one of them does not begin where the one before ends.
  func packetBytes(_ pieces: PieceList) -> Int? {
    var byteCount = 0
    var index = pieces.first
    while index >= 0 {
      let piece = self[index]
      if Int(piece.segmentOffset) != byteCount { return nil }
      byteCount &+= Int(piece.length)
      index = piece.next
    }
    return byteCount
  }

  /// Keeps a piece at the end of a list. The caller has seen to it that there is room.
  mutating func append(_ piece: Piece, to list: inout PieceList) {
    precondition(free >= 0, "more pieces came than buffers were posted")
    let index = free
    free = pieces[Int(index)].next
    pieces[Int(index)] = piece
    pieces[Int(index)].isUsed = true
    usedCount &+= 1
    link(index, to: &list)
  }

  private func link(_ index: Int32, to list: inout PieceList) {
    pieces[Int(index)].next = -1
    if list.last >= 0 { pieces[Int(list.last)].next = index } else { list.first = index }
    list.last = index
    list.count &+= 1
    list.bytes &+= Int(pieces[Int(index)].length)
  }

  /// Unlinks the first piece of a list, which must have one; it stays in the store.
  func unlinkFirst(_ list: inout PieceList) -> Int32 {
    let index = list.first
    let piece = self[index]
    list.first = piece.next
    if piece.next < 0 { list.last = -1 }
    list.count &-= 1
    list.bytes &-= Int(piece.length)
    return index
  }

  /// Links a piece that is in no list.
  func relink(_ index: Int32, to list: inout PieceList) {
    precondition(index >= 0 && index < capacity)
    link(index, to: &list)
  }

  /// Moves all of a list to the end of another.
  func move(_ list: inout PieceList, to other: inout PieceList) {
    if list.isEmpty { return }
    if other.last >= 0 {
      pieces[Int(other.last)].next = list.first
    } else {
      other.first = list.first
    }
    other.last = list.last
    other.count &+= list.count
    other.bytes &+= list.bytes
    list = PieceList()
  }

  /// Takes the first piece of a list, which must have one, out of the store.
  mutating func takeFirst(_ list: inout PieceList) -> Piece {
    let index = unlinkFirst(&list)
    let piece = pieces[Int(index)]
    release(index)
    return piece
  }

  private mutating func release(_ index: Int32) {
    pieces[Int(index)].isUsed = false
    pieces[Int(index)].next = free
    free = index
    usedCount &-= 1
  }

  /// Takes any piece out of the store, whatever list it is in; nil where none is left. Every list is void afterwards.
  mutating func takeAny() -> Piece? {
    for index in 0..<capacity where pieces[index].isUsed {
      let piece = pieces[index]
      release(Int32(index))
      return piece
    }
    return nil
  }
}
