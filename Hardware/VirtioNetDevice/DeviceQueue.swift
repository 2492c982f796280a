import CLinux
import EmulatedPCI
import Glibc
import Virtio

/// The device's side of a split virtqueue (virtio 1.2, 2.7). Reads what the driver wrote once, checks it, and records
/// what is forbidden.
struct DeviceQueue {
  static let maximumSize = 1024

  var size: UInt16 = UInt16(maximumSize)
  var vector: UInt16 = VirtioPCI.noVector
  var isEnabled = false
  var descriptors: UInt64 = 0
  var available: UInt64 = 0
  var used: UInt64 = 0

  private(set) var nextAvailable: UInt16 = 0
  private var nextUsed: UInt16 = 0
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

  /// One piece of a chain, translated.
  struct Piece {
    var address: UnsafeMutableRawPointer
    var byteCount: Int
  }

  /// A chain of buffers; storage is reused from chain to chain.
  struct Chain {
    var head: UInt16 = 0
    var readable: [iovec] = []
    var writable: [iovec] = []
    var readableBytes = 0
    var writableBytes = 0
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
    guard let memory else { return false }
    let slot = Int((nextAvailable &+ UInt16(ahead)) & (size - 1))
    chain.head = relaxed_load16(memory.available + 4 + slot * 2)
    chain.readable.removeAll(keepingCapacity: true)
    chain.writable.removeAll(keepingCapacity: true)
    chain.readableBytes = 0
    chain.writableBytes = 0
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
      if !isWritable && !chain.writable.isEmpty {
        record.add("2.7.4.2", "a readable descriptor follows a writable one")
      }
      if byteCount > 0 {
        guard
          let pointer = iommu.pointer(address, byteCount: byteCount, isWritable ? .write : .read)
        else {
          isBroken = true
          return false
        }
        let piece = iovec(iov_base: pointer, iov_len: byteCount)
        if isWritable {
          chain.writable.append(piece)
          chain.writableBytes += byteCount
        } else {
          chain.readable.append(piece)
          chain.readableBytes += byteCount
        }
      }
      if flags & SplitRing.next == 0 { return true }
      index = Int(UInt16(truncatingIfNeeded: rest >> 48))
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
  mutating func take(_ count: Int = 1) { nextAvailable &+= UInt16(count) }

  /// Puts a chain into the used ring; not shown before ``publish()``.
  mutating func putUsed(_ head: UInt16, byteCount: Int) {
    guard let memory else { return }
    let element = memory.used + 4 + Int(nextUsed & (size - 1)) * 8
    relaxed_store32(element, UInt32(head))
    relaxed_store32(element + 4, UInt32(truncatingIfNeeded: byteCount))
    nextUsed &+= 1
  }

  /// - Parameter error: what a faulty device adds to its index.
  mutating func publish(error: UInt16 = 0) {
    guard let memory else { return }
    release_store16(memory.used + 2, nextUsed &+ error)
  }

  /// Whether the driver wants an interrupt for what was used since the last one (2.7.7.2).
  mutating func wantsInterrupt(_ features: VirtioFeatures) -> Bool {
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
    guard isEnabled, !isBroken, locate(iommu), let memory else { return }
    if features.contains(.eventIndex) {
      relaxed_store16(
        memory.used + 4 + Int(size) * 8, on ? nextAvailable : nextAvailable &- 1)
    } else {
      relaxed_store16(memory.used, on ? 0 : SplitRing.noNotify)
    }
    if on { full_fence() }
  }

  /// Goes on where a ring was stopped: all that was taken has been used.
  mutating func resume(at index: UInt16) {
    nextAvailable = index
    nextUsed = index
    signalled = index
  }

  mutating func reset() { self = DeviceQueue() }
}
