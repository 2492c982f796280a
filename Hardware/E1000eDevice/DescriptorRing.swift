import CLinux
import EmulatedPCI

/// The device's side of a descriptor ring (82574 datasheet, 7.1.8 and 7.2): base, length, head, tail.
struct DescriptorRing {
  static let descriptorBytes = 16
  let name: StaticString
  private let place: StaticString
  /// The datasheet's section about the ring's registers.
  var section: String { place.description }

  var base: UInt64 = 0
  /// Bytes.
  var length: UInt32 = 0
  var head = 0
  var tail = 0
  var control: UInt32 = 0
  /// A descriptor or buffer could not be reached: the queue rests until the next reset.
  var isHalted = false

  init(_ name: StaticString, section: StaticString) {
    self.name = name
    place = section
  }

  var count: Int { Int(length) / Self.descriptorBytes }
  /// Descriptors that the driver has given and the device has not used.
  var available: Int { count == 0 ? 0 : (tail - head + count) % count }
  var isUsable: Bool { count > 0 && tail < count && head < count && !isHalted }

  mutating func advance() { head = (head + 1) % count }

  func address(of index: Int) -> UInt64 { base &+ UInt64(index * Self.descriptorBytes) }

  /// The driver moves the tail. Between head and tail the device owns the descriptors, so the tail moves only forward,
  /// and stops before the head.
  mutating func writeTail(_ value: UInt32, _ record: inout ViolationRecord) {
    let new = Int(value & 0xffff)
    if count == 0 {
      record.add(section, "the tail of \(name) was written before the ring has a length")
    } else if new >= count {
      record.add(section, "the tail of \(name) went to \(new) in a ring of \(count)")
      isHalted = true
    } else if tail < count, (new - tail + count) % count > count - 1 - available {
      record.add(
        section, "the tail of \(name) went from \(tail) to \(new) over the head at \(head)")
    }
    tail = new
  }

  var headAddress: UInt64 { address(of: head) }

  mutating func reset() {
    self = DescriptorRing(name, section: place)
  }
}

/// A descriptor in the driver's memory: two words of eight bytes.
struct Descriptor {
  var low: UInt64 = 0
  var high: UInt64 = 0

  init(low: UInt64 = 0, high: UInt64 = 0) {
    self.low = low
    self.high = high
  }

  /// Reads each word once.
  init?(at iova: UInt64, _ iommu: CheckedIOMMU) {
    let faults = iommu.faultCount
    if let memory = iommu.pointer(iova, byteCount: DescriptorRing.descriptorBytes, .read) {
      low = relaxed_load64(memory)
      high = relaxed_load64(memory + 8)
      return
    }
    var words: (UInt64, UInt64) = (0, 0)
    guard iommu.faultCount == faults,
      withUnsafeMutableBytes(of: &words, { iommu.read(iova, into: $0) })
    else { return nil }
    (low, high) = words
  }

  /// Writes the status, which is in the second word, after all else.
  func write(to iova: UInt64, _ iommu: CheckedIOMMU) -> Bool {
    let faults = iommu.faultCount
    if let memory = iommu.pointer(iova, byteCount: DescriptorRing.descriptorBytes, .write) {
      relaxed_store64(memory, low)
      release_store64(memory + 8, high)
      return true
    }
    var words = (low, high)
    return iommu.faultCount == faults
      && withUnsafeBytes(of: &words, { iommu.write(iova, from: $0) })
  }
}
