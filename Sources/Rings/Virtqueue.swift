import Memory

/// The driver's side of a virtqueue (virtio 1.2, 2.6), whatever its format: ``SplitQueue`` or ``PackedQueue``.
///
/// A driver is generic over it and compiled for each format, so that no packet asks which it is. What it does for many
/// buffers at a time has a verb of its own; what is rare is done piece by piece.
///
/// The device may write anything anywhere in the ring's memory at any time. What decides is a private record of what was
/// made available; each word of the device is read once and checked before use. A violation breaks the queue for good:
/// every later ``usedChains(limit:)`` throws the same error. One thread.
public protocol Virtqueue: ~Copyable {
  /// A chain that is being put together.
  associatedtype Chain: BitwiseCopyable
  /// What is made available in bulk, while it is put together.
  associatedtype NewChains: AvailableCursor
  /// What the device has used, while it is looked at.
  associatedtype UsedChains: UsedCursor

  /// Bytes of ring memory for a queue. Alignment: 4096 bytes serves all parts.
  /// - Parameter size: descriptors.
  static func byteCount(size: Int) -> Int
  /// Whether a queue may have so many descriptors.
  static func allows(size: Int) -> Bool

  /// - Parameters:
  ///   - memory: ``byteCount(size:)`` zeroed bytes, aligned to 16; they outlive the queue.
  ///   - size: descriptors, as ``allows(size:)`` says.
  ///   - usesEventIndex: whether VIRTIO_F_EVENT_IDX was agreed.
  init(memory: DMARange, size: Int, usesEventIndex: Bool)

  /// Descriptors.
  var size: Int { get }
  /// The descriptor table or ring, for the device.
  var descriptorArea: UInt64 { get }
  /// What the driver alone writes: the available ring, or what it says of events.
  var driverArea: UInt64 { get }
  /// What the device alone writes: the used ring, or what it says of events.
  var deviceArea: UInt64 { get }

  /// Descriptors that can be made available now.
  var room: Int { get }
  /// Chains that the device holds.
  var outstanding: Int { get }
  /// Whether the device has broken the queue's contract.
  var isBroken: Bool { get }

  /// Begins to make chains available in bulk, at the next ``publish()``. Until ``add(_:)`` has been told of them the queue
  /// must not be used otherwise.
  func newChains() -> NewChains
  /// Chains that were put together are the queue's.
  mutating func add(_ chains: NewChains)

  /// The head that the next chain will get, where there is room: what belongs to that head can be prepared. Below
  /// ``size``.
  var nextHead: Int { get }
  /// Begins a chain whose first descriptor the device reads. Its pieces follow by ``extend(_:iova:byteCount:writable:)``,
  /// then ``finish(_:slot:)``; nothing else is added meanwhile. There must be room for all of them.
  /// - Parameters:
  ///   - iova: the first byte, for the device.
  ///   - byteCount: bytes that the device reads.
  mutating func beginChain(iova: UInt64, byteCount: UInt32) -> Chain
  /// Adds a piece to a chain.
  /// - Parameters:
  ///   - chain: the one begun last.
  ///   - iova: the piece's first byte, for the device.
  ///   - byteCount: its bytes.
  ///   - writable: whether the device writes it; no readable one may follow.
  mutating func extend(
    _ chain: inout Chain, iova: UInt64, byteCount: UInt32, writable: Bool)
  /// Makes a chain available, at the next ``publish()``.
  /// - Parameters:
  ///   - chain: a chain with all its pieces.
  ///   - slot: comes back with the chain; the device does not see it.
  mutating func finish(_ chain: Chain, slot: Descriptor)
  /// Makes an indirect table available, at the next ``publish()``. There must be room for one descriptor.
  /// - Parameters:
  ///   - table: entries written by ``write(_:of:in:iova:byteCount:)``, all device-readable.
  ///   - slot: comes back with the table; the device does not see it.
  mutating func addIndirect(_ table: DMARange, slot: Descriptor)
  /// Writes one entry of an indirect table that the device does not hold.
  /// - Parameters:
  ///   - entry: which, from 0.
  ///   - count: entries of the table in use.
  ///   - table: 16 bytes for each entry.
  ///   - iova: the first byte that the device reads.
  ///   - byteCount: how many it reads.
  static func write(
    _ entry: Int, of count: Int, in table: DMARange, iova: UInt64, byteCount: UInt32)

  /// Shows the device all that was added since the last time, once a burst.
  mutating func publish()
  /// Whether the device wants to hear of what was published since it was last notified. Once a burst.
  mutating func shouldNotify() -> Bool
  /// Whether the device waits for a descriptor that it has used already, and so would wait for ever. To be asked after
  /// used buffers were taken; true once for each place in the ring.
  mutating func shouldRemind() -> Bool

  /// Begins to look at what the device has used, oldest first, up to `limit` chains. Until ``take(_:)`` has been told how
  /// far that went, the queue knows nothing of it and must not be used otherwise.
  /// - Throws: the violation that has broken the queue, or is found here.
  mutating func usedChains(limit: Int) throws(RingError) -> UsedChains
  /// The chains that were looked at are the driver's again.
  /// - Returns: whether more are ready that `chains` could not show: an in-order device has named several at once.
  /// - Throws: the device's violation. Where some chains before it are good, these are taken, and what comes next throws.
  mutating func take(_ chains: UsedChains) throws(RingError) -> Bool
  /// Hands back what the device holds, one chain at a time, after it has been reset.
  /// - Returns: the slot, or nil when nothing is left.
  mutating func takeOutstanding() -> Descriptor?
  /// Begins anew, with what broke it forgotten. Only while the device does not use the ring, and after
  /// ``takeOutstanding()`` has handed back everything.
  mutating func restart()

  /// Asks for an interrupt at the next used chain.
  /// - Returns: whether nothing has been used meanwhile, so that the caller may sleep.
  mutating func arm() -> Bool
  /// Asks for no interrupts.
  mutating func disarm()
}

/// The order in which a device uses buffers: what was agreed of VIRTIO_F_IN_ORDER. A queue is compiled for each.
public protocol UseOrder {
  /// Whether it is the order in which they were made available.
  static var isInOrder: Bool { get }
}

/// The device uses buffers as it likes, and says of each that it has.
public enum AnyOrder: UseOrder {
  @inlinable public static var isInOrder: Bool { false }
}

/// The device uses buffers in the order in which they were made available (virtio 1.2, 2.7.9 and 2.8.8), and may say so
/// of several by naming the last one: those before it then count as written to the last byte.
public enum InOrder: UseOrder {
  @inlinable public static var isInOrder: Bool { true }
}
