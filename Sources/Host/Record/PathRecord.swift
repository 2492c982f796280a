import CLinux
import Channel
import Memory

/// What outlives a driver host of one queue of a channel: who owns each receive segment, which packets are outstanding, how
/// far the host has come on each ring, and what it is handing over just now. The supervisor makes it, hosts map it one after
/// the other, no instance sees it.
///
/// Each hand-over is written ahead, so that a host can end at any instruction and nothing is lost or had by two:
///
/// 1. Slots are copied, from a ring into one of the record's bursts or from there into a ring; nobody is shown that yet.
/// 2. ``begin(_:count:index:)``: one store says which burst, how many slots and where the ring stands then. From here on the
///    hand-over is done, by this host or by the next.
/// 3. Segments change their owner, tags are marked or cleared. To do so twice changes nothing.
/// 4. ``commit(_:index:)``: the new place in the ring.
/// 5. The ring's index is published.
/// 6. ``end()``: nothing is being handed over.
///
/// A host that finds a hand-over begun does steps 3 to 6 (``reconcile(_:)``). One thread at a time.
@usableFromInline
package struct PathRecord: ~Copyable, @unchecked Sendable {
  // Invariant: points at `byteCount(segments:)` bytes that outlive this value where it does not own them. The stores of a
  // hand-over are made in the order above: between its steps there is a fence for the compiler, and what a process that is
  // killed has written is a prefix of its stores.
  @usableFromInline let base: UnsafeMutableRawPointer
  @usableFromInline let isOwn: Bool
  /// Owners' bytes that there are.
  let segments: Int
  #if DEBUG
    /// For tests.
    var atCrashPoint: ((CrashPoint) -> Void)?
  #endif

  /// What is handed over. The raw values are those of the rings' places in the record.
  @usableFromInline
  enum Flow: UInt32 {
    case receive = 0
    case transmit = 1
    case completion = 2
    case free = 3
  }

  // Offsets: the hand-over, the magic number, the places, the tags' bytes, the bursts, the owners' bytes.
  @usableFromInline static var places: Int { 16 }
  @usableFromInline static var tags: Int { 64 }
  private static let tagCount = 1 << 16
  private static let bursts = tags + tagCount
  /// Slots of each burst.
  static let burstCapacity = 256
  /// No multiple of a page: the bursts' first lines would share the sets of a first-level cache.
  private static let burstBytes = burstCapacity * 16 + 320
  private static let owners = bursts + 4 * burstBytes
  private static let magic: UInt64 = 0x3144_524f_4345_5250  // "PRECORD1"

  /// Bytes of a record for so many segments: a multiple of a page.
  static func byteCount(segments: Int) -> Int { (owners + segments + 4095) / 4096 * 4096 }

  /// A record in memory that outlives it.
  /// - Parameter memory: `byteCount(segments:)` bytes, all 0 before a host has used them.
  init(_ memory: UnsafeMutableRawPointer, segments: Int) {
    base = memory
    self.segments = segments
    isOwn = false
  }

  /// A record that goes with this value: for a path that nobody takes over.
  package init(segments: Int = 0) {
    let byteCount = Self.byteCount(segments: segments)
    base = .allocate(byteCount: byteCount, alignment: 64)
    base.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    self.segments = segments
    isOwn = true
  }

  @inlinable
  deinit { if isOwn { base.deallocate() } }

  /// For a ledger of at most so many segments as the record has.
  var ownerBytes: UnsafeMutablePointer<UInt8> {
    (base + Self.owners).assumingMemoryBound(to: UInt8.self)
  }

  private func slots(_ flow: Flow) -> UnsafeMutablePointer<Descriptor> {
    (base + Self.bursts + Int(flow.rawValue) * Self.burstBytes)
      .assumingMemoryBound(to: Descriptor.self)
  }

  /// The burst by which a flow is handed over.
  func burst(_ flow: Flow, capacity: Int) -> Burst {
    precondition(capacity <= Self.burstCapacity)
    return Burst(storage: slots(flow), capacity: capacity)
  }

  // MARK: Handing over

  /// - Parameters:
  ///   - count: slots at the front of the flow's burst.
  ///   - index: the ring's, when this is done.
  @inlinable @inline(__always)
  func begin(_ flow: Flow, count: Int, index: UInt32) {
    crashPoint(.copied)
    compiler_fence()
    let word = UInt64(index) &<< 32 | UInt64(truncatingIfNeeded: count) &<< 8
    relaxed_store64(base, word | UInt64(flow.rawValue) &+ 1)
    compiler_fence()
    crashPoint(.begun)
  }

  @inlinable @inline(__always)
  func commit(_ flow: Flow, index: UInt32) {
    crashPoint(.marked)
    compiler_fence()
    relaxed_store32(base + Self.places + Int(flow.rawValue) &* 4, index)
    compiler_fence()
    crashPoint(.committed)
  }

  @inlinable @inline(__always)
  func end() {
    crashPoint(.published)
    compiler_fence()
    relaxed_store64(base, 0)
    compiler_fence()
    crashPoint(.ended)
  }

  /// The packets in a burst's first slots are outstanding: they are in nobody's ring.
  @inlinable @inline(__always)
  func mark(_ burst: borrowing Burst) {
    let slots = burst.start
    var isFirst = true
    for index in 0..<burst.count {
      let rest = (slots + index).rest
      if isFirst { storeTag(rest, 1) }
      isFirst = rest &>> 32 & UInt64(Descriptor.Flags.more.rawValue) == 0
    }
  }

  /// The packets whose tags stand in a burst's first slots are completed.
  @inlinable @inline(__always)
  func clear(_ burst: borrowing Burst, count: Int) {
    let slots = burst.start
    for index in 0..<count { storeTag((slots + index).rest, 0) }
  }

  // Invariant: there is a byte for each value that a tag, the highest 16 bits, can have.
  @inlinable @inline(__always)
  func storeTag(_ rest: UInt64, _ value: UInt8) {
    base.storeBytes(of: value, toByteOffset: Self.tags &+ Int(rest &>> 48), as: UInt8.self)
  }

  /// Between the steps of a hand-over, where a test takes over.
  @usableFromInline
  enum CrashPoint { case copied, begun, marked, committed, published, ended }

  #if DEBUG
    @usableFromInline func crashPoint(_ point: CrashPoint) { atCrashPoint?(point) }
  #else
    @inlinable @inline(__always) func crashPoint(_ point: CrashPoint) {}
  #endif
}

// MARK: Taking over

extension PathRecord {
  /// Ends what the host before had begun, and counts who owns what. Once, by a new host, before it does anything else; the
  /// device has been reset. A record that nobody has used is one of a path where nothing has happened.
  /// - Parameter ledger: has the record's owners' bytes.
  /// - Returns: how far that host had come on each ring.
  /// - Throws: where the record makes no sense, as one may that was written by a host that failed.
  func reconcile(_ ledger: inout SegmentLedger) throws(RecordError) -> RingPlaces {
    let magic = relaxed_load64(base + 8)
    guard magic == 0 || magic == Self.magic else { throw .foreign(magic) }
    let word = relaxed_load64(base)
    if word != 0 { try finish(word, &ledger) }
    guard ledger.recover() else { throw .noOwner }
    for first in stride(from: 0, to: Self.tagCount, by: 8) where tagWord(first) & Self.notTags != 0
    {
      throw .badTag(first)
    }
    relaxed_store64(base + 8, Self.magic)
    return RingPlaces(
      receive: place(.receive), transmit: place(.transmit), completion: place(.completion),
      free: place(.free))
  }

  private func place(_ flow: Flow) -> UInt32 {
    relaxed_load32(base + Self.places + Int(flow.rawValue) * 4)
  }

  /// The bytes of eight tags.
  private func tagWord(_ first: Int) -> UInt64 { relaxed_load64(base + Self.tags + first) }
  /// Bits that are 0 where each byte is 0 or 1.
  private static let notTags: UInt64 = 0xfefe_fefe_fefe_fefe

  private func finish(_ word: UInt64, _ ledger: inout SegmentLedger) throws(RecordError) {
    let count = Int(word >> 8 & 0xff_ffff)
    let index = UInt32(truncatingIfNeeded: word >> 32)
    guard let flow = Flow(rawValue: UInt32(word & 0xff) &- 1), count > 0,
      count <= Self.burstCapacity
    else { throw .badHandOver(word) }
    // Either the place in the ring was written already, or it is where these slots begin.
    let done = index &- place(flow)
    guard done == 0 || done == UInt32(count) else { throw .badHandOver(word) }
    let slots = slots(flow)
    var isFirst = true
    for number in 0..<count {
      let slot = slots[number]
      switch flow {
      case .receive:
        guard slot.flags.contains(.offload) || ledger.redoGiving(slot.segment) else {
          throw .badSegment(slot.segment)
        }
      case .free:
        guard ledger.redoTakingBack(slot.segment) else { throw .badSegment(slot.segment) }
      case .transmit: if isFirst { storeTag(UInt64(slot.tag) << 48, 1) }
      case .completion: storeTag(UInt64(slot.tag) << 48, 0)
      }
      isFirst = !slot.flags.contains(.more)
    }
    commit(flow, index: index)
    end()
  }

  /// Tags of packets that the host before had taken and not completed: they are completed by the next one, sent or not.
  func outstandingTags() -> [UInt16] {
    var result: [UInt16] = []
    for first in stride(from: 0, to: Self.tagCount, by: 8) {
      var word = tagWord(first)
      while word != 0 {
        let byte = word.trailingZeroBitCount / 8
        result.append(UInt16(first + byte))
        word &= ~(0xff << UInt64(8 * byte))
      }
    }
    return result
  }
}

/// Why a host cannot go on where the one before ended.
public enum RecordError: Error, Equatable {
  /// It was written by another version of the host, or is none.
  case foreign(UInt64)
  /// A hand-over that no host begins.
  case badHandOver(UInt64)
  /// A segment, by its unit, that could not be handed over.
  case badSegment(UInt32)
  /// A segment is owned by nobody that there is.
  case noOwner
  /// One of eight tags, from this one on, is neither outstanding nor completed.
  case badTag(Int)
  /// The instance claims to have read what was never written.
  case badPlace
}

extension RecordError: CustomStringConvertible {
  public var description: String {
    let what =
      switch self {
      case .foreign: "it is no record of this version"
      case .badHandOver: "a hand-over that cannot be"
      case .badSegment(let unit): "the segment at unit \(unit) could not be handed over"
      case .noOwner: "a segment without an owner"
      case .badTag(let tag): "one of the tags from \(tag) on is neither outstanding nor completed"
      case .badPlace: "the instance has read what was never written"
      }
    return "the record that the host before has left makes no sense: \(what)"
  }
}
