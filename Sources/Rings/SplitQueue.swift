import CLinux
import Memory
import Virtio

/// The driver's side of a split virtqueue (virtio 1.2, 2.7).
///
/// The device may write anything anywhere in the ring's memory at any time. What decides here is the private record of
/// what was made available; of the device's words only the used index and the used elements are read, each once, and
/// checked before use. A violation breaks the queue for good: every later call throws the same error. One thread.
@frozen
public struct SplitQueue: ~Copyable, @unchecked Sendable {
  // Invariant: `descriptors`, `available` and `used` point into DMA memory of the sizes of 2.7 for `size`, which
  // outlives the queue. The private arrays have `size` elements each.
  @usableFromInline let descriptors: UnsafeMutableRawPointer
  @usableFromInline let available: UnsafeMutableRawPointer
  @usableFromInline let used: UnsafeMutableRawPointer
  @usableFromInline let records: UnsafeMutablePointer<Record>
  @usableFromInline let free: UnsafeMutablePointer<UInt16>
  /// Descriptors, a power of two.
  public let size: Int
  @usableFromInline let mask: UInt16
  /// Whether VIRTIO_F_EVENT_IDX was agreed (2.7.10).
  public let usesEventIndex: Bool
  /// The descriptor table, for the device.
  public let descriptorsIOVA: UInt64
  /// The available ring, for the device.
  public let availableIOVA: UInt64
  /// The used ring, for the device.
  public let usedIOVA: UInt64

  @usableFromInline var freeCount: Int
  /// Next free-running available index, not yet published.
  @usableFromInline var nextAvailable: UInt16 = 0
  /// What the device was last told.
  @usableFromInline var published: UInt16 = 0
  /// Available index when the device was last notified, for the event index.
  @usableFromInline var notified: UInt16 = 0
  @usableFromInline var nextUsed: UInt16 = 0
  /// Chains that the device holds.
  @usableFromInline var heads = 0
  @usableFromInline var broken: RingError?

  /// What was made available under a head: the private truth.
  @usableFromInline
  struct Record: BitwiseCopyable {
    /// Descriptors of the chain; 0 where the device does not hold this head.
    @usableFromInline var count: UInt16 = 0
    /// The next descriptor of the chain, as this side knows it.
    @usableFromInline var next: UInt16 = 0
    /// Bytes that the device may write.
    @usableFromInline var writable: UInt32 = 0
    @usableFromInline var cookie: UInt64 = 0
    @usableFromInline init() {}
  }

  /// Bytes of ring memory for a queue. Alignment: 4096 bytes serves all parts.
  /// - Parameter size: descriptors.
  public static func byteCount(size: Int) -> Int {
    usedOffset(size: size) + SplitRing.usedBytes(size: size)
  }

  private static func usedOffset(size: Int) -> Int {
    let end = size * SplitRing.descriptorBytes + SplitRing.availableBytes(size: size)
    // A cache line of the device's own: the driver's words lie on others.
    return (end + 127) / 128 * 128
  }

  /// - Parameters:
  ///   - memory: ``byteCount(size:)`` zeroed bytes, aligned to 16.
  ///   - size: a power of two up to 32768 (2.7).
  ///   - usesEventIndex: whether VIRTIO_F_EVENT_IDX was agreed.
  public init(memory: DMARange, size: Int, usesEventIndex: Bool) {
    precondition(size > 0 && size <= VirtioPCI.maximumQueueSize && size & (size - 1) == 0)
    precondition(memory.byteCount >= Self.byteCount(size: size) && memory.iova & 15 == 0)
    self.size = size
    mask = UInt16(size - 1)
    self.usesEventIndex = usesEventIndex
    descriptors = memory.address
    available = memory.address + size * SplitRing.descriptorBytes
    used = memory.address + Self.usedOffset(size: size)
    descriptorsIOVA = memory.iova
    availableIOVA = memory.iova + UInt64(size * SplitRing.descriptorBytes)
    usedIOVA = memory.iova + UInt64(Self.usedOffset(size: size))
    records = .allocate(capacity: size)
    records.initialize(repeating: Record(), count: size)
    free = .allocate(capacity: size)
    for index in 0..<size { (free + index).initialize(to: UInt16(size - 1 - index)) }
    freeCount = size
    disarm()
  }

  deinit {
    records.deallocate()
    free.deallocate()
  }

  /// Descriptors that can be made available now.
  @inlinable public var room: Int { freeCount }
  /// Chains that the device holds.
  @inlinable public var outstanding: Int { heads }
  /// Whether the device has broken the ring's contract.
  @inlinable public var isBroken: Bool {
    if case .some = broken { return true }
    return false
  }

  // MARK: Making available

  /// Makes one device-writable buffer available, at the next ``publish()``. There must be room.
  /// - Parameters:
  ///   - iova: its first byte, for the device.
  ///   - byteCount: bytes that the device may write, more than 0.
  ///   - cookie: comes back with the buffer; the device does not see it.
  @inlinable @_noLocks
  public mutating func addWritable(iova: UInt64, byteCount: UInt32, cookie: UInt64) {
    let head = takeFree()
    write(head, iova: iova, byteCount: byteCount, flags: SplitRing.write, next: 0)
    expose(head, count: 1, writable: byteCount, cookie: cookie)
  }

  /// Begins a chain whose first descriptor the device reads. Its pieces follow by ``extend(_:iova:byteCount:writable:)``,
  /// then ``finish(_:cookie:)``. There must be room for all of them.
  /// - Parameters:
  ///   - iova: the first byte, for the device.
  ///   - byteCount: bytes that the device reads.
  @inlinable @_noLocks
  public mutating func beginChain(iova: UInt64, byteCount: UInt32) -> Chain {
    let head = takeFree()
    write(head, iova: iova, byteCount: byteCount, flags: 0, next: 0)
    return Chain(head: head, last: head)
  }

  /// The head that the next chain will get, where there is room: what belongs to that head can be prepared.
  @inlinable
  public var nextHead: Int { Int(free[freeCount &- 1]) }

  /// Adds a piece to a chain.
  /// - Parameters:
  ///   - chain: from ``beginChain(iova:byteCount:)``, the one begun last.
  ///   - iova: the piece's first byte, for the device.
  ///   - byteCount: its bytes.
  ///   - writable: whether the device writes it; no readable one may follow (2.7.4.2).
  @inlinable @_noLocks
  public mutating func extend(
    _ chain: inout Chain, iova: UInt64, byteCount: UInt32, writable: Bool = false
  ) {
    let index = takeFree()
    records[Int(chain.last)].next = index
    // The descriptor before gains its link; the device cannot see the chain yet.
    let before = descriptors + Int(chain.last) &* 16
    relaxed_store16(before + 12, relaxed_load16(before + 12) | SplitRing.next)
    relaxed_store16(before + 14, index)
    write(index, iova: iova, byteCount: byteCount, flags: writable ? SplitRing.write : 0, next: 0)
    chain.last = index
    chain.count &+= 1
    if writable { chain.writable &+= byteCount }
  }

  /// Makes a chain available, at the next ``publish()``.
  /// - Parameters:
  ///   - chain: a chain with all its pieces.
  ///   - cookie: comes back with the chain; the device does not see it.
  @inlinable @_noLocks
  public mutating func finish(_ chain: Chain, cookie: UInt64) {
    expose(chain.head, count: chain.count, writable: chain.writable, cookie: cookie)
  }

  /// Makes an indirect table available, at the next ``publish()`` (2.7.5.3). The caller has written it; there must be room
  /// for one descriptor.
  /// - Parameters:
  ///   - iova: the table's first byte, for the device.
  ///   - count: its descriptors, of 16 bytes each, all device-readable.
  ///   - cookie: comes back with the table; the device does not see it.
  @inlinable @_noLocks
  public mutating func addIndirect(iova: UInt64, descriptors count: Int, cookie: UInt64) {
    let head = takeFree()
    write(
      head, iova: iova, byteCount: UInt32(count &* 16), flags: SplitRing.indirect, next: 0)
    expose(head, count: 1, writable: 0, cookie: cookie)
  }

  /// A chain that is being put together.
  @frozen
  public struct Chain: BitwiseCopyable {
    @usableFromInline var head: UInt16
    @usableFromInline var last: UInt16
    @usableFromInline var count: UInt16 = 1
    @usableFromInline var writable: UInt32 = 0

    @inlinable
    init(head: UInt16, last: UInt16) {
      self.head = head
      self.last = last
    }
  }

  /// Shows the device all that was added since the last time (2.7.13.3): once a burst.
  @inlinable @_noLocks
  public mutating func publish() {
    if published == nextAvailable { return }
    published = nextAvailable
    release_store16(available + 2, nextAvailable)
  }

  /// Whether the device wants to hear of what was published since it was last notified (2.7.13.4). Once a burst.
  @inlinable @_noLocks
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

  // MARK: Taking back

  /// How many chains the device has used since the last time.
  /// - Throws: when the index jumped further than chains are outstanding (2.7.8).
  @inlinable @_noLocks
  public mutating func usedCount() throws(RingError) -> Int {
    if let broken { throw broken }
    let index = acquire_load16(used + 2)
    let count = Int(index &- nextUsed)
    if count > heads {
      throw fail(.indexJump(from: nextUsed, to: index, outstanding: heads))
    }
    return count
  }

  /// Takes the next used chain; ``usedCount()`` has said that there is one.
  /// - Returns: the cookie, and how many bytes the device says it wrote: never more than were writable.
  @inlinable @_noLocks
  public mutating func takeUsed() throws(RingError) -> (cookie: UInt64, byteCount: UInt32) {
    let element = used + 4 + Int(nextUsed & mask) &* 8
    let id = relaxed_load32(element)
    let length = relaxed_load32(element + 4)
    if id >= UInt32(truncatingIfNeeded: size) { throw fail(.idOutOfRange(id: id, size: size)) }
    let head = Int(id)
    let record = records[head]
    if record.count == 0 { throw fail(.idNotOutstanding(id: id)) }
    // A transmit chain has nothing writable: what the device says of it means nothing (2.7.8.3).
    if record.writable != 0 && length > record.writable {
      throw fail(.lengthBeyondBuffer(id: id, length: length, posted: record.writable))
    }
    nextUsed &+= 1
    heads &-= 1
    release(head, record)
    return (record.cookie, record.writable == 0 ? 0 : length)
  }

  /// Hands back what the device holds, one chain at a time, after it has been reset.
  /// - Returns: the cookie, or nil when nothing is left.
  public mutating func takeOutstanding() -> UInt64? {
    if heads == 0 { return nil }
    for head in 0..<size where records[head].count != 0 {
      heads -= 1
      let record = records[head]
      release(head, record)
      return record.cookie
    }
    return nil
  }

  /// Begins anew, as after ``init(memory:size:usesEventIndex:)``, with what broke it forgotten. Only while the device
  /// does not use the ring, and after ``takeOutstanding()`` has handed back everything.
  public mutating func restart() {
    precondition(heads == 0)
    let byteCount = Self.byteCount(size: size)
    descriptors.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    nextAvailable = 0
    published = 0
    notified = 0
    nextUsed = 0
    broken = nil
    disarm()
  }

  // MARK: Interrupts

  /// Asks for an interrupt at the next used chain (2.7.10).
  /// - Returns: whether nothing has been used meanwhile, so that the caller may sleep.
  @inlinable @_noLocks
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
  @inlinable @_noLocks
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
    freeCount &-= 1
    return free[freeCount]
  }

  @inlinable @inline(__always)
  func write(_ index: UInt16, iova: UInt64, byteCount: UInt32, flags: UInt16, next: UInt16) {
    let descriptor = descriptors + Int(index) &* 16
    relaxed_store64(descriptor, iova)
    relaxed_store64(
      descriptor + 8,
      UInt64(byteCount) | UInt64(flags) &<< 32 | UInt64(next) &<< 48)
  }

  @inlinable @inline(__always)
  mutating func expose(_ head: UInt16, count: UInt16, writable: UInt32, cookie: UInt64) {
    let record = records + Int(head)
    record.pointee.count = count
    record.pointee.writable = writable
    record.pointee.cookie = cookie
    heads &+= 1
    relaxed_store16(available + 4 + Int(nextAvailable & mask) &* 2, head)
    nextAvailable &+= 1
  }

  @inlinable @inline(__always)
  mutating func release(_ head: Int, _ record: Record) {
    records[head].count = 0
    free[freeCount] = UInt16(truncatingIfNeeded: head)
    freeCount &+= 1
    var index = record.next
    var left = record.count &- 1
    while left > 0 {
      free[freeCount] = index
      freeCount &+= 1
      index = records[Int(index)].next
      left &-= 1
    }
  }

  @inline(never) @usableFromInline @_noLocks
  mutating func fail(_ error: RingError) -> RingError {
    broken = error
    return error
  }
}
