import CLinux
import Memory
import Virtio

/// The driver's side of a packed virtqueue (virtio 1.2, 2.8).
///
/// Of the device's words only used descriptors at the one place where the next is due, and its wish for notifications,
/// are read.
@frozen
public struct PackedQueue<Order: UseOrder>: Virtqueue, ~Copyable, @unchecked Sendable {
  // Invariant: `descriptors`, `driverEvents` and `deviceEvents` point into DMA memory of the sizes of 2.8.10.1 for
  // `size`, which outlives the queue. The private arrays have `size` elements each.
  @usableFromInline let descriptors: UnsafeMutableRawPointer
  @usableFromInline let driverEvents: UnsafeMutableRawPointer
  @usableFromInline let deviceEvents: UnsafeMutableRawPointer
  @usableFromInline let records: UnsafeMutablePointer<OutstandingChain>
  /// Free buffer ids, where they come back in any order: the first `size` - `heads` of them.
  @usableFromInline let freeIDs: UnsafeMutablePointer<UInt16>
  /// What the device wrote where the last chains were looked at, if it was not what was expected.
  @usableFromInline let refused: UnsafeMutablePointer<UsedWord>
  /// Descriptors; any number from 2 on.
  public let size: Int
  /// Whether VIRTIO_F_EVENT_IDX was agreed.
  public let usesEventIndex: Bool
  public let descriptorArea: UInt64
  public let driverArea: UInt64
  public let deviceArea: UInt64

  @usableFromInline var freeCount: Int
  /// The descriptor that is written next, and the marks of an available one at it (2.8.1).
  @usableFromInline var next = 0
  @usableFromInline var availableMarks = PackedRing.available
  /// The descriptor that is used next, and the marks of a used one at it.
  @usableFromInline var nextUsed = 0
  @usableFromInline var usedMarks = PackedRing.available | PackedRing.used
  @usableFromInline var batch = UsedBatch()
  /// The first descriptor that was added since the last time, and its second half, which is kept back: the device sees
  /// none of them before it is written (2.8.21.1).
  @usableFromInline var first: UnsafeMutableRawPointer?
  @usableFromInline let keptBack: UnsafeMutablePointer<UInt64>
  /// Descriptors that were added, and of those published the ones that the device was not asked about.
  @usableFromInline var added = 0
  @usableFromInline var unnotified = 0
  /// Where the device was when it was reminded last.
  @usableFromInline var reminded = -1
  @usableFromInline var heads = 0
  @usableFromInline var broken: RingError?

  /// The driver's and the device's events have cache lines of their own.
  public static func byteCount(size: Int) -> Int { eventOffset(size: size) + 256 }

  private static func eventOffset(size: Int) -> Int {
    (size * PackedRing.descriptorBytes + 127) / 128 * 128
  }

  /// From 2 to 32768 (2.8).
  public static func allows(size: Int) -> Bool { size >= 2 && size <= VirtioPCI.maximumQueueSize }

  public init(memory: DMARange, size: Int, usesEventIndex: Bool) {
    precondition(Self.allows(size: size))
    precondition(memory.byteCount >= Self.byteCount(size: size) && memory.iova & 15 == 0)
    self.size = size
    self.usesEventIndex = usesEventIndex
    let events = Self.eventOffset(size: size)
    descriptors = memory.address
    driverEvents = memory.address + events
    deviceEvents = memory.address + events + 128
    descriptorArea = memory.iova
    driverArea = memory.iova + UInt64(events)
    deviceArea = memory.iova + UInt64(events + 128)
    records = .allocate(capacity: size)
    records.initialize(repeating: OutstandingChain(), count: size)
    freeIDs = .allocate(capacity: size)
    for index in 0..<size { (freeIDs + index).initialize(to: UInt16(size - 1 - index)) }
    refused = .allocate(capacity: 1)
    refused.initialize(to: UsedWord())
    keptBack = .allocate(capacity: 1)
    keptBack.initialize(to: 0)
    freeCount = size
    disarm()
  }

  deinit {
    records.deallocate()
    freeIDs.deallocate()
    refused.deallocate()
    keptBack.deallocate()
  }

  @inlinable public var room: Int { freeCount }
  @inlinable public var outstanding: Int { heads }
  @inlinable public var isBroken: Bool {
    if case .some = broken { return true }
    return false
  }

  // MARK: Making available

  @inlinable @inline(__always)
  public func newChains() -> NewChains { NewChains(self) }

  @inlinable @inline(__always)
  public mutating func add(_ chains: NewChains) {
    let count = freeCount &- chains.room
    if count == 0 { return }
    if first == nil { first = chains.first }
    commit(
      (chains.descriptor - descriptors) &>> 4, UInt16(truncatingIfNeeded: chains.marks &>> 48),
      descriptors: count, chains: chains.count)
  }

  /// The id of the next chain; in order, the place of its first descriptor.
  @inlinable
  public var nextHead: Int { Order.isInOrder ? next : Int(freeIDs[size &- heads &- 1]) }

  /// A chain that is being put together.
  @frozen
  public struct Chain: BitwiseCopyable {
    @usableFromInline let id: Int
    /// The first descriptor, and its second half, which is written last (2.8.6).
    @usableFromInline let head: UnsafeMutableRawPointer
    @usableFromInline var headWord: UInt64
    /// The last descriptor, and its second half, whose chain may go on.
    @usableFromInline var last: UnsafeMutableRawPointer
    @usableFromInline var lastWord: UInt64
    @usableFromInline var count: UInt16 = 1
    @usableFromInline var writable: UInt32 = 0

    @inlinable
    init(id: Int, head: UnsafeMutableRawPointer, word: UInt64) {
      self.id = id
      self.head = head
      headWord = word
      last = head
      lastWord = word
    }
  }

  @inlinable
  public mutating func beginChain(iova: UInt64, byteCount: UInt32) -> Chain {
    precondition(freeCount > 0)
    let id = nextHead
    let head = descriptors + next &* 16
    relaxed_store64(head, iova)
    let word = Self.word(byteCount, id: id, availableMarks)
    Self.advance(&next, &availableMarks, size)
    return Chain(id: id, head: head, word: word)
  }

  @inlinable
  public mutating func extend(
    _ chain: inout Chain, iova: UInt64, byteCount: UInt32, writable: Bool
  ) {
    precondition(Int(chain.count) < freeCount)
    let marks = writable ? PackedRing.write | availableMarks : availableMarks
    let descriptor = descriptors + next &* 16
    relaxed_store64(descriptor, iova)
    let before = chain.lastWord | UInt64(PackedRing.next) &<< 48
    if chain.count == 1 {
      chain.headWord = before
    } else {
      relaxed_store64(chain.last + 8, before)
    }
    chain.last = descriptor
    chain.lastWord = Self.word(byteCount, id: chain.id, marks)
    chain.count &+= 1
    if writable { chain.writable &+= byteCount }
    Self.advance(&next, &availableMarks, size)
  }

  @inlinable
  public mutating func finish(_ chain: Chain, slot: Descriptor) {
    if chain.count > 1 { relaxed_store64(chain.last + 8, chain.lastWord) }
    if first == nil {
      first = chain.head
      keptBack.pointee = chain.headWord
    } else {
      // The whole list is made available after its other descriptors (2.8.17).
      release_fence()
      relaxed_store64(chain.head + 8, chain.headWord)
    }
    records[chain.id] = OutstandingChain(slot, writable: chain.writable, count: chain.count)
    commit(next, availableMarks, descriptors: Int(chain.count), chains: 1)
  }

  @inlinable
  public mutating func addIndirect(_ table: DMARange, slot: Descriptor) {
    var chain = beginChain(
      iova: table.iova, byteCount: UInt32(truncatingIfNeeded: table.byteCount))
    chain.headWord |= UInt64(PackedRing.indirect) &<< 48
    finish(chain, slot: slot)
  }

  /// 2.8.7: entries follow each other, and only WRITE means anything in them.
  @inlinable
  public static func write(
    _ entry: Int, of count: Int, in table: DMARange, iova: UInt64, byteCount: UInt32
  ) {
    table.store64(iova, at: entry &* 16)
    table.store64(UInt64(byteCount), at: entry &* 16 &+ 8)
  }

  /// Shows the device all that was added since the last time: the marks of the first descriptor come last (2.8.21.1).
  @inlinable
  public mutating func publish() {
    guard let first else { return }
    let firstWord = keptBack.pointee
    relaxed_store32(first + 8, UInt32(truncatingIfNeeded: firstWord))
    relaxed_store16(first + 12, UInt16(truncatingIfNeeded: firstWord &>> 32))
    release_store16(first + 14, UInt16(truncatingIfNeeded: firstWord &>> 48))
    self.first = nil
    unnotified &+= added
    added = 0
  }

  /// Whether the device wants to hear of what was published since it was last asked (2.8.21.2).
  @inlinable
  public mutating func shouldNotify() -> Bool {
    if unnotified == 0 { return false }
    // 2.8.21.2.1: the marks must be visible before the device's wish is read.
    full_fence()
    let count = unnotified
    unnotified = 0
    let event = relaxed_load32(deviceEvents)
    let flags = UInt16(truncatingIfNeeded: event &>> 16) & 3
    if flags == PackedRing.eventsOff { return false }
    if flags != PackedRing.eventAtDescriptor || !usesEventIndex { return true }
    let distance = distance(to: event)
    return distance > 0 && distance <= count
  }

  /// Seen of QEMU 7.2 as a busy network device: it says which descriptor it waits for, goes on with the ring all the same,
  /// and sleeps at its end without saying so anew.
  @inlinable
  public mutating func shouldRemind() -> Bool {
    if !usesEventIndex || heads == 0 || nextUsed == reminded { return false }
    let event = relaxed_load32(deviceEvents)
    if UInt16(truncatingIfNeeded: event &>> 16) & 3 != PackedRing.eventAtDescriptor { return false }
    // Behind the oldest one that the device has.
    if distance(to: event) <= size &- freeCount { return false }
    reminded = nextUsed
    return true
  }

  /// How many descriptors ago the one was made available that the device waits for (2.8.14).
  @inlinable @inline(__always)
  func distance(to event: UInt32) -> Int {
    let distance = next &- Int(event & 0x7fff)
    let isThisRound = (event & 0x8000 != 0) == (availableMarks & PackedRing.available != 0)
    return isThisRound ? distance : distance &+ size
  }

  // MARK: Interrupts

  /// Asks for an interrupt when the descriptor that is due is used (2.8.10).
  @inlinable
  public mutating func arm() -> Bool {
    if usesEventIndex {
      let wrap: UInt32 = usedMarks == 0 ? 0 : 1 << 15
      relaxed_store32(
        driverEvents,
        UInt32(truncatingIfNeeded: nextUsed) | wrap | UInt32(PackedRing.eventAtDescriptor) &<< 16)
    } else {
      relaxed_store32(driverEvents, UInt32(PackedRing.eventsOn) &<< 16)
    }
    full_fence()
    let marks = relaxed_load16(descriptors + nextUsed &* 16 + 14) & Self.bothMarks
    return batch.left == 0 && marks != usedMarks
  }

  @inlinable
  public mutating func disarm() {
    relaxed_store32(driverEvents, UInt32(PackedRing.eventsOff) &<< 16)
  }

  public mutating func restart() {
    precondition(heads == 0)
    descriptors.initializeMemory(
      as: UInt8.self, repeating: 0, count: Self.byteCount(size: size))
    next = 0
    availableMarks = PackedRing.available
    nextUsed = 0
    usedMarks = Self.bothMarks
    batch = UsedBatch()
    first = nil
    added = 0
    unnotified = 0
    reminded = -1
    broken = nil
    disarm()
  }

  // MARK: Private record

  @inlinable static var bothMarks: UInt16 { PackedRing.available | PackedRing.used }

  /// The second half of a descriptor (2.8.13).
  @inlinable @inline(__always)
  static func word(_ byteCount: UInt32, id: Int, _ flags: UInt16) -> UInt64 {
    UInt64(byteCount) | UInt64(UInt16(truncatingIfNeeded: id)) &<< 32 | UInt64(flags) &<< 48
  }

  /// To the next descriptor; behind the last one the wrap counter changes (2.8.1).
  @inlinable @inline(__always)
  static func advance(_ place: inout Int, _ marks: inout UInt16, _ size: Int) {
    place &+= 1
    if _slowPath(place == size) {
      place = 0
      marks ^= bothMarks
    }
  }

  @inlinable @inline(__always)
  mutating func commit(_ place: Int, _ marks: UInt16, descriptors: Int, chains: Int) {
    next = place
    availableMarks = marks
    freeCount &-= descriptors
    added &+= descriptors
    heads &+= chains
  }
}
