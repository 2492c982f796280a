import CLinux
import EmulatedPCI
import Glibc
import Virtio

/// The device's side of a virtqueue: of a split one (virtio 1.2, 2.7), or of a packed one (``PackedDeviceRing``). Reads
/// what the driver wrote once, checks it, and records what is forbidden.
struct DeviceQueue {
  static let maximumSize = 1024

  var size: UInt16 = UInt16(maximumSize)
  var vector: UInt16 = VirtioPCI.noVector
  var isEnabled = false
  var descriptors: UInt64 = 0
  var available: UInt64 = 0
  var used: UInt64 = 0

  /// Where the driver says that the parts of the queue are.
  struct Addresses {
    var descriptors: UInt64
    var driver: UInt64
    var device: UInt64
  }
  private var addresses: Addresses {
    Addresses(descriptors: descriptors, driver: available, device: used)
  }

  /// The ring, where packed ones were agreed.
  private(set) var packed: PackedDeviceRing?
  private var isInOrder = false
  /// In order: the descriptor that the next chain begins with (2.7.5).
  private var nextInOrder = 0
  /// Chains that were used and not shown yet.
  private var unpublished: [UsedGroup] = []

  private(set) var nextAvailable: UInt16 = 0
  private(set) var nextUsed: UInt16 = 0
  /// Used index when the driver was last interrupted.
  private var signalled: UInt16 = 0
  private var memory:
    (
      descriptors: UnsafeMutableRawPointer, available: UnsafeMutableRawPointer,
      used: UnsafeMutableRawPointer
    )?
  private var generation: UInt64 = .max
  /// The device has asked to be notified, and does not look at the queue before that (2.7.10).
  var isAsleep = false
  /// The ring broke the specification so that it cannot be read on.
  private(set) var isBroken = false

  /// What the driver reads of the queue in the common configuration (4.1.4.3).
  func register(_ offset: Int) -> UInt32 {
    switch offset {
    case VirtioPCI.Common.queueSize: UInt32(size)
    case VirtioPCI.Common.queueVector: UInt32(vector)
    case VirtioPCI.Common.queueEnable: isEnabled ? 1 : 0
    case VirtioPCI.Common.queueDescriptors: UInt32(truncatingIfNeeded: descriptors)
    case VirtioPCI.Common.queueDescriptors + 4: UInt32(descriptors >> 32)
    case VirtioPCI.Common.queueDriver: UInt32(truncatingIfNeeded: available)
    case VirtioPCI.Common.queueDriver + 4: UInt32(available >> 32)
    case VirtioPCI.Common.queueDevice: UInt32(truncatingIfNeeded: used)
    case VirtioPCI.Common.queueDevice + 4: UInt32(used >> 32)
    default: 0
    }
  }

  /// What is needed of a chain when it is used: the head or id, and how long it is.
  struct Head {
    var id: UInt16
    /// Descriptors of the ring.
    var descriptors: Int
    var writableBytes: Int
  }

  /// Chains that one used element or descriptor stands for: with in-order all but the last have been written to their
  /// ends (2.7.9, 2.8.8).
  struct UsedGroup {
    /// Of the last one, and what the driver is told: they differ in a faulty device.
    var named: UInt16
    var ids: [UInt16]
    var descriptors: Int
    var byteCount: Int
    /// The last one has been written to its end too.
    var isFull: Bool
  }

  /// A chain of buffers; storage is reused from chain to chain.
  struct Chain {
    private(set) var head: UInt16 = 0
    var descriptors = 0
    private(set) var readable: [iovec] = []
    private(set) var writable: [iovec] = []
    private(set) var readableBytes = 0
    private(set) var writableBytes = 0

    var asHead: Head { Head(id: head, descriptors: descriptors, writableBytes: writableBytes) }

    mutating func begin(head: UInt16, descriptors: Int) {
      self.head = head
      self.descriptors = descriptors
      readable.removeAll(keepingCapacity: true)
      writable.removeAll(keepingCapacity: true)
      readableBytes = 0
      writableBytes = 0
    }

    /// Adds a piece.
    /// - Returns: false where it is not mapped.
    mutating func add(
      _ address: UInt64, _ byteCount: Int, isWritable: Bool, _ section: String,
      _ iommu: CheckedIOMMU, _ record: inout ViolationRecord
    ) -> Bool {
      if !isWritable && !writable.isEmpty {
        record.add(section, "a readable descriptor follows a writable one")
      }
      if byteCount == 0 { return true }
      guard let pointer = iommu.pointer(address, byteCount: byteCount, isWritable ? .write : .read)
      else { return false }
      let piece = iovec(iov_base: pointer, iov_len: byteCount)
      if isWritable {
        writable.append(piece)
        writableBytes += byteCount
      } else {
        readable.append(piece)
        readableBytes += byteCount
      }
      return true
    }
  }

  /// What reading a ring yields.
  enum Next { case empty, chain, broken }

  /// Finds the ring's memory, again whenever the mappings have changed.
  private mutating func locate(_ iommu: CheckedIOMMU) -> Bool {
    if memory != nil && generation == iommu.generation { return true }
    let size = Int(self.size)
    guard
      let d = iommu.pointer(descriptors, byteCount: size * 16, .read),
      let a = iommu.pointer(available, byteCount: SplitRing.availableBytes(size: size), .read),
      let u = iommu.pointer(used, byteCount: SplitRing.usedBytes(size: size), .write)
    else {
      memory = nil
      return false
    }
    memory = (d, a, u)
    generation = iommu.generation
    return true
  }

  /// Chains that the driver has made available and the device has not taken.
  mutating func pending(_ iommu: CheckedIOMMU, _ record: inout ViolationRecord) -> Int {
    if isEnabled && packed != nil { return packed!.pending(addresses, iommu, &record) }
    guard isEnabled, !isBroken, locate(iommu), let memory else { return 0 }
    let index = acquire_load16(memory.available + 2)
    let count = index &- nextAvailable
    if count > size {
      record.add(
        "2.7.6.1", "available index went from \(nextAvailable) to \(index) in a ring of \(size)")
      isBroken = true
      return 0
    }
    return Int(count)
  }

  /// Reads the chain that is `ahead` places after the next one; nothing is taken.
  mutating func read(
    _ chain: inout Chain, ahead: Int = 0, iommu: CheckedIOMMU, features: VirtioFeatures,
    _ record: inout ViolationRecord
  ) -> Bool {
    if packed != nil {
      return packed!.read(&chain, ahead: ahead, iommu: iommu, features: features, &record)
    }
    guard let memory else { return false }
    let slot = Int((nextAvailable &+ UInt16(ahead)) & (size - 1))
    chain.begin(head: relaxed_load16(memory.available + 4 + slot * 2), descriptors: 0)
    if chain.head >= size {
      record.add("2.7.6", "available ring names descriptor \(chain.head) of \(size)")
      isBroken = true
      return false
    }
    if features.contains(.eventIndex), relaxed_load16(memory.available) != 0 {
      record.add("2.7.7.1", "available flags are not 0 although the event index was agreed")
    }
    var table = memory.descriptors
    var entries = Int(size)
    var index = Int(chain.head)
    var walked = 0
    var isIndirect = false
    while true {
      walked += 1
      if !isIndirect { chain.descriptors += 1 }
      if walked > entries {
        record.add("2.7.5.2", "a chain loops or is longer than its table of \(entries)")
        isBroken = true
        return false
      }
      let address = relaxed_load64(table + index * 16)
      let rest = relaxed_load64(table + index * 16 + 8)
      let byteCount = Int(UInt32(truncatingIfNeeded: rest))
      let flags = UInt16(truncatingIfNeeded: rest >> 32)
      if flags & SplitRing.indirect != 0 {
        guard
          let indirect = follow(
            address, byteCount, flags, isIndirect: isIndirect, features, iommu, &record)
        else {
          isBroken = true
          return false
        }
        table = indirect
        entries = byteCount / 16
        index = 0
        walked = 0
        isIndirect = true
        continue
      }
      let isWritable = flags & SplitRing.write != 0
      guard chain.add(address, byteCount, isWritable: isWritable, "2.7.4.2", iommu, &record) else {
        isBroken = true
        return false
      }
      if flags & SplitRing.next == 0 { return true }
      let before = index
      index = Int(UInt16(truncatingIfNeeded: rest >> 48))
      if isInOrder && index != (isIndirect ? before + 1 : (before + 1) % Int(size)) {
        record.add(
          "2.7.5.2", "descriptor \(before)'s next is \(index) although in-order was agreed")
      }
      if index >= entries {
        record.add("2.7.5", "a descriptor's next is \(index) in a table of \(entries)")
        isBroken = true
        return false
      }
    }
  }

  private func follow(
    _ address: UInt64, _ byteCount: Int, _ flags: UInt16, isIndirect: Bool,
    _ features: VirtioFeatures, _ iommu: CheckedIOMMU, _ record: inout ViolationRecord
  ) -> UnsafeMutableRawPointer? {
    if !features.contains(.indirectDescriptors) {
      record.add("2.7.5.3.1", "an indirect descriptor although that was not agreed")
      return nil
    }
    if isIndirect {
      record.add("2.7.5.3.1", "an indirect table inside an indirect table")
      return nil
    }
    if flags & SplitRing.next != 0 {
      record.add("2.7.5.3.1", "a descriptor that is indirect and has a next")
      return nil
    }
    if byteCount == 0 || byteCount % 16 != 0 || byteCount / 16 > Int(size) {
      record.add("2.7.5.3.1", "an indirect table of \(byteCount) bytes")
      return nil
    }
    return iommu.pointer(address, byteCount: byteCount, .read)
  }

  /// Takes the next `count` chains: they have been read, and will be used.
  mutating func take(_ count: Int = 1) {
    packed?.take(count)
    nextAvailable &+= UInt16(count)
  }

  /// Uses a chain; not shown before ``publish(error:)``.
  /// - Parameter name: what a faulty device calls it.
  mutating func putUsed(
    _ head: Head, byteCount: Int, as name: UInt16? = nil, _ record: inout ViolationRecord
  ) {
    if isInOrder && packed == nil {
      if Int(head.id) != nextInOrder {
        record.add("2.7.5", "descriptor \(head.id) was used, and \(nextInOrder) was next in order")
      }
      nextInOrder = (Int(head.id) + head.descriptors) % Int(size)
    }
    let isGood = name == nil || name == head.id
    let isFull = isGood && byteCount == head.writableBytes
    if isInOrder && isGood, let last = unpublished.last, last.isFull {
      unpublished[unpublished.count - 1] = UsedGroup(
        named: head.id, ids: last.ids + [head.id],
        descriptors: last.descriptors + head.descriptors, byteCount: byteCount, isFull: isFull)
    } else {
      unpublished.append(
        UsedGroup(
          named: name ?? head.id, ids: [head.id], descriptors: head.descriptors,
          byteCount: byteCount, isFull: isFull))
    }
  }

  /// - Parameter error: what a faulty device adds to its index.
  mutating func publish(error: UInt16 = 0) {
    defer { unpublished.removeAll(keepingCapacity: true) }
    if packed != nil {
      // A packed ring has no index. A device that is ahead uses a buffer once more, one that is behind is in the round
      // before.
      let isAhead = error != 0 && error < 0x8000
      packed!.publish(
        isAhead ? unpublished + unpublished.suffix(1) : unpublished, isOfWrongRound: error >= 0x8000
      )
      return
    }
    guard let memory else { return }
    for group in unpublished {
      let element = memory.used + 4 + Int(nextUsed & (size - 1)) * 8
      relaxed_store32(element, UInt32(group.named))
      relaxed_store32(element + 4, UInt32(truncatingIfNeeded: group.byteCount))
      nextUsed &+= UInt16(group.ids.count)
    }
    release_store16(memory.used + 2, nextUsed &+ error)
  }

  /// Whether the driver wants an interrupt for what was used since the last one (2.7.7.2).
  mutating func wantsInterrupt(_ features: VirtioFeatures, _ record: inout ViolationRecord) -> Bool
  {
    if packed != nil { return packed!.wantsInterrupt(&record) }
    guard let memory, nextUsed != signalled else { return false }
    full_fence()
    let before = signalled
    signalled = nextUsed
    if features.contains(.eventIndex) {
      let event = relaxed_load16(memory.available + 4 + Int(size) * 2)
      return nextUsed &- event &- 1 < nextUsed &- before
    }
    return relaxed_load16(memory.available) & SplitRing.noInterrupt == 0
  }

  /// Says whether the driver should notify (2.7.10): off while the device looks by itself.
  mutating func setNotifications(_ on: Bool, _ iommu: CheckedIOMMU, _ features: VirtioFeatures) {
    if isEnabled && packed != nil {
      packed!.setNotifications(on, addresses, iommu)
      return
    }
    guard isEnabled, !isBroken, locate(iommu), let memory else { return }
    if features.contains(.eventIndex) {
      relaxed_store16(
        memory.used + 4 + Int(size) * 8, on ? nextAvailable : nextAvailable &- 1)
    } else {
      relaxed_store16(memory.used, on ? 0 : SplitRing.noNotify)
    }
    if on { full_fence() }
  }

  /// The driver enables the queue, of the kind that was agreed.
  mutating func enable(_ features: VirtioFeatures, _ record: inout ViolationRecord) {
    let isPacked = features.contains(.packedRing)
    let isAligned =
      descriptors % 16 == 0 && available % (isPacked ? 4 : 2) == 0 && used % 4 == 0
    if !isAligned {
      let (section, bytes) = isPacked ? ("2.8.11", 4) : ("2.7", 2)
      record.add(section, "the parts of a queue are not aligned to 16, \(bytes) and 4 bytes")
    }
    if !isPacked && size & (size - 1) != 0 { record.add("2.7", "a split ring of \(size)") }
    isInOrder = features.contains(.inOrder)
    packed =
      isPacked
      ? PackedDeviceRing(size: Int(size), usesEventIndex: features.contains(.eventIndex)) : nil
    isEnabled = true
  }

  /// Where the ring goes on, as vhost-user has it: for packed rings with the wrap counters, the used side in the upper
  /// half.
  var base: UInt32 { packed?.base ?? UInt32(nextAvailable) }

  /// Goes on where a ring was stopped: all that was taken has been used. Of a queue that is enabled.
  /// - Returns: false where a ring of this kind has no such place.
  mutating func resume(at base: UInt32) -> Bool {
    if packed != nil { return packed!.resume(at: base) }
    guard let index = UInt16(exactly: base) else { return false }
    nextAvailable = index
    nextUsed = index
    signalled = index
    return true
  }

  mutating func reset() { self = DeviceQueue() }
}
