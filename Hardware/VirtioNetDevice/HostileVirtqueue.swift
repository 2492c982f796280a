import CLinux
import EmulatedPCI
import Virtio

/// The device's side of a virtqueue as a script plays it: it writes what it is told to, whether a device may or not.
/// Begins where the honest device is, which afterwards knows nothing of it. One thread.
public struct HostileVirtqueue {
  // Invariant: ring memory of the sizes of virtio 1.2, 2.7 and 2.8.10, mapped for the function while this is in use.
  private let descriptors: UnsafeMutableRawPointer
  private let driver: UnsafeMutableRawPointer
  private let device: UnsafeMutableRawPointer
  private let iommu: CheckedIOMMU
  public let size: Int
  public let isPacked: Bool
  /// Split: the free-running used index. Packed: the descriptor that is used next.
  public var place: Int
  /// Packed: the wrap counter at `place`.
  public var wrap = true

  /// - Returns: nil where the queue is not enabled, or its memory not mapped.
  public init?(_ function: VirtioNetDevice, queue index: Int) {
    let queue = function.queues[index]
    guard queue.isEnabled else { return nil }
    size = Int(queue.size)
    isPacked = function.features.contains(.packedRing)
    iommu = function.iommu
    let sizes =
      isPacked
      ? (PackedRing.eventBytes, PackedRing.eventBytes)
      : (SplitRing.availableBytes(size: size), SplitRing.usedBytes(size: size))
    guard
      let descriptors = iommu.pointer(queue.descriptors, byteCount: size * 16, .write),
      let driver = iommu.pointer(queue.available, byteCount: sizes.0, .write),
      let device = iommu.pointer(queue.used, byteCount: sizes.1, .write)
    else { return nil }
    (self.descriptors, self.driver, self.device) = (descriptors, driver, device)
    place = queue.packed?.nextUsed.index ?? Int(queue.nextUsed)
    wrap = queue.packed?.nextUsed.wrap ?? true
  }

  /// The chain that is `ahead` places after the one that an honest device would use next in order: its head or id.
  public func due(ahead: Int = 0) -> UInt32 {
    let index = (place + ahead) % size
    return isPacked
      ? UInt32(relaxed_load16(descriptors + index * 16 + 12))
      : UInt32(relaxed_load16(driver + 4 + index * 2))
  }

  /// The first buffer of that chain; nil where the device may not write it.
  public func buffer(ahead: Int = 0) -> UnsafeMutableRawPointer? {
    let index = isPacked ? (place + ahead) % size : Int(due(ahead: ahead)) % size
    let descriptor = descriptors + index * 16
    let byteCount = Int(relaxed_load32(descriptor + 8))
    return iommu.pointer(relaxed_load64(descriptor), byteCount: max(1, byteCount), .write)
  }

  /// Uses a chain.
  /// - Parameters:
  ///   - id: its head or id; nil for the one that is due.
  ///   - length: bytes that the device says it wrote.
  ///   - advance: how far the used index moves, or of how many descriptors the chain is to be: 1 for an honest one.
  public mutating func use(_ id: UInt32? = nil, length: UInt32, advance: Int = 1) {
    let named = id ?? due()
    if isPacked {
      let descriptor = descriptors + place * 16
      let marks = wrap ? PackedRing.available | PackedRing.used : 0
      relaxed_store32(descriptor + 8, length)
      relaxed_store16(descriptor + 12, UInt16(truncatingIfNeeded: named))
      release_store16(descriptor + 14, marks | (length > 0 ? PackedRing.write : 0))
      place += advance
      while place >= size {
        place -= size
        wrap.toggle()
      }
    } else {
      let element = device + 4 + place % size * 8
      relaxed_store32(element, named)
      relaxed_store32(element + 4, length)
      moveIndex(by: advance)
    }
  }

  /// Split rings: the used index says something else.
  public mutating func moveIndex(by count: Int) {
    place = (place + count) & 0xffff
    release_store16(device + 2, UInt16(place))
  }

  /// Packed rings: the marks of a descriptor, and nothing else of it.
  public func setMarks(_ flags: UInt16, at index: Int) {
    release_store16(descriptors + index % size * 16 + 14, flags)
  }

  /// What the device says of notifications: the flags word of a split ring, the event structure of a packed one.
  public func setEvents(_ word: UInt32) {
    if isPacked {
      relaxed_store32(device, word)
    } else {
      relaxed_store16(device, UInt16(truncatingIfNeeded: word))
      relaxed_store16(device + 4 + size * 8, UInt16(truncatingIfNeeded: word >> 16))
    }
  }

  /// Writes into the descriptors, which in a split ring no device writes.
  /// - Parameter word: which eight bytes of the table.
  public func setDescriptor(word: Int, _ value: UInt64) {
    relaxed_store64(descriptors + word % (2 * size) * 8, value)
  }
  public func descriptor(word: Int) -> UInt64 {
    relaxed_load64(descriptors + word % (2 * size) * 8)
  }
}
