import CLinux

/// A ring of captured packets as a queue thread writes it. What does not fit is counted and lost: nobody waits. One thread.
///
/// Layout: a page with the capture's number, how many bytes have been written, and the counters of each point; then the
/// records, each a ``CaptureRecord`` and its packet's bytes. A record lies in one piece: where there is no room for it before
/// the ring's end, a record of length 0 says that the next one is at the start.
struct CaptureRingWriter: ~Copyable {
  // Invariant: where `size` is not 0, `page` points at a page and then `size` bytes, a power of two, that are mapped as long
  // as this lives, and `reader` at the reader's word. Whatever that word says, each place that is written lies below `size`.
  private var page: UnsafeMutableRawPointer
  private var reader: UnsafeRawPointer
  private var size: UInt64 = 0
  private var written: UInt64 = 0
  /// Bytes that have been read, as of the last look.
  private var read: UInt64 = 0

  private static let writtenOffset = 8
  private static let countersOffset = 64
  private static let counterBytes = 24

  init(page: UnsafeMutableRawPointer, reader: UnsafeRawPointer) {
    self.page = page
    self.reader = reader
  }

  /// Begins with a capture, or goes on with one that a host before has begun.
  mutating func begin(session: UInt64, size: Int) {
    self.size = UInt64(size)
    read = 0
    if acquire_load64(page) == session {
      written = relaxed_load64(page + Self.writtenOffset)
      // No place is between two words, whatever is there.
      if written & 7 != 0 { written &+= 8 &- written & 7 }
      return
    }
    written = 0
    relaxed_store64(page + Self.writtenOffset, 0)
    (page + Self.countersOffset).initializeMemory(
      as: UInt8.self, repeating: 0, count: CapturePoint.counterCount * Self.counterBytes)
    release_store64(page, session)
  }

  /// Room for a record in one piece; nil where there is none.
  mutating func room(for byteCount: Int) -> UnsafeMutableRawPointer? {
    let needed = UInt64(byteCount)
    var place = written & (size &- 1)
    let before = size &- place
    let skipped = needed > before ? before : 0
    if !fits(needed &+ skipped) { return nil }
    if skipped > 0 {
      // All places are multiples of 8: there is room for the word.
      (page + CaptureArea.pageBytes + Int(place)).storeBytes(of: 0, as: UInt32.self)
      written &+= skipped
      place = 0
    }
    return page + CaptureArea.pageBytes + Int(place)
  }

  private mutating func fits(_ byteCount: UInt64) -> Bool {
    if byteCount <= size && written &- read <= size &- byteCount { return true }
    read = acquire_load64(reader)
    // A reader that says more than was written has read nothing.
    return byteCount <= size && written &- read <= size &- byteCount
  }

  /// A record of which all has been written.
  mutating func append(_ byteCount: Int) { written &+= UInt64(byteCount) }

  /// The reader sees what has been appended.
  func publish() { release_store64(page + Self.writtenOffset, written) }

  /// Packets at a point: seen, taken by the filter, lost for want of room.
  func count(_ counter: Int, seen: Int, matched: Int, dropped: Int) {
    let place = page + Self.countersOffset + counter &* Self.counterBytes
    relaxed_store64(place, relaxed_load64(place) &+ UInt64(seen))
    relaxed_store64(place + 8, relaxed_load64(place + 8) &+ UInt64(matched))
    relaxed_store64(place + 16, relaxed_load64(place + 16) &+ UInt64(dropped))
  }

  static func counts(_ page: UnsafeRawPointer, _ counter: Int) -> CaptureCounts {
    let place = page + countersOffset + counter * counterBytes
    return CaptureCounts(
      seen: relaxed_load64(place), matched: relaxed_load64(place + 8),
      dropped: relaxed_load64(place + 16))
  }
  static func written(_ page: UnsafeRawPointer) -> UInt64 {
    acquire_load64(page + writtenOffset)
  }
}

/// What became of the packets at one point.
public struct CaptureCounts: Sendable, Equatable {
  public var seen: UInt64 = 0
  /// Taken by the filter.
  public var matched: UInt64 = 0
  /// Of those, lost because the ring was full.
  public var dropped: UInt64 = 0

  public init(seen: UInt64 = 0, matched: UInt64 = 0, dropped: UInt64 = 0) {
    self.seen = seen
    self.matched = matched
    self.dropped = dropped
  }

  public static func += (sum: inout CaptureCounts, other: CaptureCounts) {
    sum.seen &+= other.seen
    sum.matched &+= other.matched
    sum.dropped &+= other.dropped
  }
}

extension CaptureArea {
  /// What a capture has counted on all queues and at all points.
  public func counts(slot: Int, session: UInt64) -> CaptureCounts {
    var sum = CaptureCounts()
    for queue in 0..<queues {
      let page = UnsafeRawPointer(ring(slot, queue))
      guard acquire_load64(page) == session else { continue }
      for counter in 0..<CapturePoint.counterCount {
        sum += CaptureRingWriter.counts(page, counter)
      }
    }
    return sum
  }
}

/// The rings of one capture as its reader sees them. The host is not believed where that could hurt the reader. One thread.
public struct CaptureReader: ~Copyable {
  private let area: CaptureArea
  private let readers: CaptureReaders
  private let slot: Int
  private let session: UInt64
  private let size: UInt64
  private var read: [UInt64]
  /// Records that were none: the host has written nonsense, and the ring was read to its end without it.
  public private(set) var brokenRecords: UInt64 = 0

  /// - Parameters:
  ///   - slot: the capture's.
  ///   - session: its number.
  ///   - ringBytes: of each queue's ring.
  public init(
    area: consuming CaptureArea, readers: consuming CaptureReaders, slot: Int, session: UInt64,
    ringBytes: Int
  ) {
    read = [UInt64](repeating: 0, count: area.queues)
    self.area = area
    self.readers = readers
    self.slot = slot
    self.session = session
    size = UInt64(ringBytes)
  }

  public var queues: Int { area.queues }

  /// Hands over the records of one queue that are there.
  /// - Parameters:
  ///   - limit: records at most.
  ///   - body: gets a record and the packet's bytes, which are there until it returns.
  /// - Returns: records.
  @discardableResult
  public mutating func read(
    queue: Int, limit: Int = .max, _ body: (CaptureRecord, UnsafeRawBufferPointer) throws -> Void
  ) rethrows -> Int {
    let page = UnsafeRawPointer(area.ring(slot, queue))
    guard acquire_load64(page) == session else { return 0 }
    let end = CaptureRingWriter.written(page)
    var count = 0
    var place = read[queue]
    defer {
      read[queue] = place
      release_store64(readers.word(slot, queue), place)
    }
    while place != end && count < limit {
      let offset = place & (size &- 1)
      let before = size &- offset
      let start = page + CaptureArea.pageBytes + Int(offset)
      let length = UInt64(relaxed_load32(start))
      if length == 0 && end &- place >= before {
        place &+= before
        continue
      }
      guard length >= UInt64(CaptureRecord.byteCount), length & 7 == 0, length <= before,
        length <= end &- place
      else { return skip(&place, to: end, count) }
      let record = start.loadUnaligned(as: CaptureRecord.self)
      guard UInt64(record.capturedBytes) <= length - UInt64(CaptureRecord.byteCount) else {
        return skip(&place, to: end, count)
      }
      place &+= length
      count += 1
      try body(
        record,
        UnsafeRawBufferPointer(
          start: start + CaptureRecord.byteCount, count: Int(record.capturedBytes)))
    }
    return count
  }

  private mutating func skip(_ place: inout UInt64, to end: UInt64, _ count: Int) -> Int {
    place = end
    brokenRecords += 1
    return count
  }

  /// What became of a point's packets, on all queues.
  public func counts(_ point: CapturePoint, instance: Int = 0) -> CaptureCounts {
    var sum = CaptureCounts()
    for queue in 0..<area.queues {
      let page = UnsafeRawPointer(area.ring(slot, queue))
      guard acquire_load64(page) == session else { continue }
      sum += CaptureRingWriter.counts(
        page, CapturePoint.counterIndex(point, instance: instance))
    }
    return sum
  }
}
