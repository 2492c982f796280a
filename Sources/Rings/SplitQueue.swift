import CLinux
import Memory
import Virtio

/// The driver's side of a split virtqueue (virtio 1.2, 2.7).
///
/// Of the device's words only the used index, the used elements and its wish for notifications are read.
@frozen
public struct SplitQueue<Order: UseOrder>: Virtqueue, ~Copyable, @unchecked Sendable {
  // Invariant: `descriptors`, `available` and `used` point into DMA memory of the sizes of 2.7 for `size`, which
  // outlives the queue. The private arrays have `size` elements each.
  @usableFromInline let descriptors: UnsafeMutableRawPointer
  @usableFromInline let available: UnsafeMutableRawPointer
  @usableFromInline let used: UnsafeMutableRawPointer
  @usableFromInline let records: UnsafeMutablePointer<OutstandingChain>
  /// The next descriptor of a chain, as this side knows it.
  @usableFromInline let links: UnsafeMutablePointer<UInt16>
  /// Free descriptors, where they come back in any order.
  @usableFromInline let free: UnsafeMutablePointer<UInt16>
  /// What the device wrote where the last chains were looked at, if it was not what was expected.
  @usableFromInline let refused: UnsafeMutablePointer<UsedWord>
  /// Descriptors, a power of two.
  public let size: Int
  @usableFromInline let mask: UInt16
  /// Whether VIRTIO_F_EVENT_IDX was agreed (2.7.10).
  public let usesEventIndex: Bool
  public let descriptorArea: UInt64
  public let driverArea: UInt64
  public let deviceArea: UInt64

  @usableFromInline var freeCount: Int
  /// In order: the descriptor that is used next (2.7.5), and the head of the oldest chain.
  @usableFromInline var nextFree: UInt16 = 0
  @usableFromInline var oldest: UInt16 = 0
  @usableFromInline var batch = UsedBatch()
  /// Next free-running available index, not yet published.
  @usableFromInline var nextAvailable: UInt16 = 0
  /// What the device was last told.
  @usableFromInline var published: UInt16 = 0
  /// Available index when the device was last notified, for the event index.
  @usableFromInline var notified: UInt16 = 0
  @usableFromInline var nextUsed: UInt16 = 0
  @usableFromInline var heads = 0
  @usableFromInline var broken: RingError?

  public static func byteCount(size: Int) -> Int {
    usedOffset(size: size) + SplitRing.usedBytes(size: size)
  }

  private static func usedOffset(size: Int) -> Int {
    let end = size * SplitRing.descriptorBytes + SplitRing.availableBytes(size: size)
    // A cache line of the device's own: the driver's words lie on others.
    return (end + 127) / 128 * 128
  }

  /// A power of two up to 32768 (2.7).
  public static func allows(size: Int) -> Bool {
    size > 0 && size <= VirtioPCI.maximumQueueSize && size & (size - 1) == 0
  }

  public init(memory: DMARange, size: Int, usesEventIndex: Bool) {
    precondition(Self.allows(size: size))
    precondition(memory.byteCount >= Self.byteCount(size: size) && memory.iova & 15 == 0)
    self.size = size
    mask = UInt16(size - 1)
    self.usesEventIndex = usesEventIndex
    descriptors = memory.address
    available = memory.address + size * SplitRing.descriptorBytes
    used = memory.address + Self.usedOffset(size: size)
    descriptorArea = memory.iova
    driverArea = memory.iova + UInt64(size * SplitRing.descriptorBytes)
    deviceArea = memory.iova + UInt64(Self.usedOffset(size: size))
    records = .allocate(capacity: size)
    records.initialize(repeating: OutstandingChain(), count: size)
    links = .allocate(capacity: size)
    links.initialize(repeating: 0, count: size)
    free = .allocate(capacity: size)
    for index in 0..<size { (free + index).initialize(to: UInt16(size - 1 - index)) }
    refused = .allocate(capacity: 1)
    refused.initialize(to: UsedWord())
    freeCount = size
    disarm()
  }

  deinit {
    records.deallocate()
    links.deallocate()
    free.deallocate()
    refused.deallocate()
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
    heads &+= Int(chains.index &- nextAvailable)
    nextAvailable = chains.index
    freeCount = chains.room
    if Order.isInOrder { nextFree = chains.place }
  }

  @inlinable
  public var nextHead: Int { Order.isInOrder ? Int(nextFree) : Int(free[freeCount &- 1]) }

  /// A chain that is being put together.
  @frozen
  public struct Chain: BitwiseCopyable {
    @usableFromInline var head: UInt16
    @usableFromInline var last: UInt16
    /// Of the last descriptor: what was written into the table is not read back.
    @usableFromInline var lastFlags: UInt16 = 0
    @usableFromInline var count: UInt16 = 1
    @usableFromInline var writable: UInt32 = 0

    @inlinable
    init(head: UInt16) {
      self.head = head
      last = head
    }
  }

  @inlinable
  public mutating func beginChain(iova: UInt64, byteCount: UInt32) -> Chain {
    let head = takeFree()
    write(head, iova: iova, Self.word(byteCount, 0, next: 0))
    return Chain(head: head)
  }

  @inlinable
  public mutating func extend(
    _ chain: inout Chain, iova: UInt64, byteCount: UInt32, writable: Bool
  ) {
    let index = takeFree()
    links[Int(chain.last)] = index
    // The descriptor before gains its link; the device cannot see the chain yet.
    let before = descriptors + Int(chain.last) &* 16
    relaxed_store16(before + 12, chain.lastFlags | SplitRing.next)
    relaxed_store16(before + 14, index)
    chain.lastFlags = writable ? SplitRing.write : 0
    write(index, iova: iova, Self.word(byteCount, chain.lastFlags, next: 0))
    chain.last = index
    chain.count &+= 1
    if writable { chain.writable &+= byteCount }
  }

  @inlinable
  public mutating func finish(_ chain: Chain, slot: Descriptor) {
    expose(
      chain.head, OutstandingChain(slot, writable: chain.writable, count: chain.count))
  }

  @inlinable
  public mutating func addIndirect(_ table: DMARange, slot: Descriptor) {
    let head = takeFree()
    let byteCount = UInt32(truncatingIfNeeded: table.byteCount)
    write(head, iova: table.iova, Self.word(byteCount, SplitRing.indirect, next: 0))
    expose(head, OutstandingChain(slot, writable: 0, count: 1))
  }

  /// 2.7.5.3: entries are linked one to the next.
  @inlinable
  public static func write(
    _ entry: Int, of count: Int, in table: DMARange, iova: UInt64, byteCount: UInt32
  ) {
    let next = UInt16(truncatingIfNeeded: entry &+ 1)
    table.store64(iova, at: entry &* 16)
    table.store64(
      Int(next) == count
        ? word(byteCount, 0, next: 0) : word(byteCount, SplitRing.next, next: next),
      at: entry &* 16 &+ 8)
  }

  /// Shows the device all that was added since the last time (2.7.13.3).
  @inlinable
  public mutating func publish() {
    if published == nextAvailable { return }
    published = nextAvailable
    release_store16(available + 2, nextAvailable)
  }

  /// Whether the device wants to hear of what was published since it was last notified (2.7.13.4).
  @inlinable
  public mutating func shouldNotify() -> Bool {
    if notified == published { return false }
    // 2.7.13.4.1: the index must be visible before the flags are read.
    full_fence()
    let before = notified
    notified = published
    if usesEventIndex {
      let event = relaxed_load16(used + 4 + size &* 8)
      return published &- event &- 1 < published &- before
    }
    return relaxed_load16(used) & SplitRing.noNotify == 0
  }

  /// Never: the used index says at any time how far the device has come.
  @inlinable
  public mutating func shouldRemind() -> Bool { false }

  // MARK: Interrupts

  /// Asks for an interrupt at the next used chain (2.7.10).
  @inlinable
  public mutating func arm() -> Bool {
    if usesEventIndex {
      relaxed_store16(available + 4 + size &* 2, nextUsed)
    } else {
      relaxed_store16(available, 0)
    }
    full_fence()
    return relaxed_load16(used + 2) == nextUsed
  }

  /// Asks for no interrupts; with the event index, for one as late as can be said (2.7.7).
  @inlinable
  public mutating func disarm() {
    if usesEventIndex {
      // As far ahead as an index can be; flags stay 0 (2.7.7.1).
      relaxed_store16(available + 4 + size &* 2, nextUsed &- 1)
    } else {
      relaxed_store16(available, SplitRing.noInterrupt)
    }
  }

  // MARK: Private record

  @inlinable @inline(__always)
  mutating func takeFree() -> UInt16 {
    precondition(freeCount > 0)
    let index = UInt16(truncatingIfNeeded: nextHead)
    removeFree(1)
    return index
  }

  @inlinable @inline(__always)
  mutating func removeFree(_ count: Int) {
    freeCount &-= count
    if Order.isInOrder { nextFree = (nextFree &+ UInt16(truncatingIfNeeded: count)) & mask }
  }

  /// The second half of a descriptor.
  @inlinable @inline(__always)
  static func word(_ byteCount: UInt32, _ flags: UInt16, next: UInt16) -> UInt64 {
    UInt64(byteCount) | UInt64(flags) &<< 32 | UInt64(next) &<< 48
  }

  @inlinable @inline(__always)
  func write(_ index: UInt16, iova: UInt64, _ word: UInt64) {
    let descriptor = descriptors + Int(index) &* 16
    relaxed_store64(descriptor, iova)
    relaxed_store64(descriptor + 8, word)
  }

  @inlinable @inline(__always)
  mutating func expose(_ head: UInt16, _ record: OutstandingChain) {
    records[Int(head)] = record
    heads &+= 1
    relaxed_store16(available + 4 + Int(nextAvailable & mask) &* 2, head)
    nextAvailable &+= 1
  }
}
