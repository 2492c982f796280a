import Memory
import Virtio

@testable import Rings

/// The device's side of a packed ring, played by a test: it writes what it likes.
final class PackedScriptedDevice {
  let memory: UnsafeMutableRawPointer
  let range: DMARange
  let size: Int
  /// Where the next used descriptor goes, and its wrap counter.
  var place = 0
  var wrap = true

  init(size: Int) {
    self.size = size
    let byteCount = PackedQueue<AnyOrder>.byteCount(size: size)
    memory = .allocate(byteCount: byteCount, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    range = DMARange(address: memory, iova: 0x10000, byteCount: byteCount)
  }

  deinit { memory.deallocate() }

  func queue(eventIndex: Bool = false) -> PackedQueue<AnyOrder> {
    PackedQueue(memory: range, size: size, usesEventIndex: eventIndex)
  }
  func inOrderQueue() -> PackedQueue<InOrder> {
    PackedQueue(memory: range, size: size, usesEventIndex: true)
  }

  private var events: UnsafeMutableRawPointer { memory + (size * 16 + 127) / 128 * 128 }
  var driverEvents: UInt32 { events.load(as: UInt32.self) }
  func setDeviceEvents(_ word: UInt32) { (events + 128).storeBytes(of: word, as: UInt32.self) }

  func descriptor(_ index: Int) -> (iova: UInt64, length: UInt32, id: UInt16, flags: UInt16) {
    let at = memory + index % size * 16
    return (
      at.load(as: UInt64.self), at.load(fromByteOffset: 8, as: UInt32.self),
      at.load(fromByteOffset: 12, as: UInt16.self), at.load(fromByteOffset: 14, as: UInt16.self)
    )
  }

  /// Whether the driver has made the descriptor available in the round of `wrap`.
  func isAvailable(_ index: Int, wrap: Bool) -> Bool {
    let flags = descriptor(index).flags
    return (flags & PackedRing.available != 0) == wrap && (flags & PackedRing.used != 0) != wrap
  }

  /// Writes a used descriptor where it is due, and goes on by `count`.
  func use(_ id: UInt16, length: UInt32, skipping count: Int = 1, writes: Bool = true) {
    let at = memory + place * 16
    at.storeBytes(of: length, toByteOffset: 8, as: UInt32.self)
    at.storeBytes(of: id, toByteOffset: 12, as: UInt16.self)
    let marks = wrap ? PackedRing.available | PackedRing.used : 0
    at.storeBytes(
      of: marks | (writes ? PackedRing.write : 0), toByteOffset: 14, as: UInt16.self)
    place += count
    if place >= size {
      place -= size
      wrap.toggle()
    }
  }

  func setFlags(_ index: Int, _ flags: UInt16) {
    (memory + index * 16).storeBytes(of: flags, toByteOffset: 14, as: UInt16.self)
  }
}
