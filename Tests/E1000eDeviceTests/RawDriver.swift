import CLinux
import E1000eDevice
import EmulatedPCI
import Glibc
import Wire

/// Registers and rings by hand, as a test says, right or wrong. Offsets and bits are written out from the datasheet, so
/// that they cannot be wrong in the same way as the model's.
final class RawDriver {
  let device: E1000eDevice
  let wire = MemoryWire()
  let memory: UnsafeMutableRawPointer
  static let base: UInt64 = 0x100000
  static let byteCount = 1 << 21
  static let ringEntries = 16
  static let macAddress: [UInt8] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]
  /// Offsets in the memory: rings of RX0, RX1, TX0, TX1 at 4 KiB each, then buffers.
  static let receiveBuffers = 0x10000
  static let transmitBuffers = 0x100000
  var isExtended = false
  var bufferBytes = 2048
  var eventfds: [Int32] = []
  private var transmitTail = [0, 0]
  var receiveTail = [0, 0]
  var receiveNext = [0, 0]

  init(_ options: E1000eDevice.Options = .init()) throws {
    device = E1000eDevice(wire: wire, options: options)
    memory = .allocate(byteCount: Self.byteCount, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: Self.byteCount)
    try device.iommu.map(
      iova: Self.base, byteCount: UInt64(Self.byteCount), address: memory, rights: [.read, .write])
    device.writeConfiguration(6, at: 4, byteCount: 2)
  }

  deinit {
    memory.deallocate()
    for descriptor in eventfds { close(descriptor) }
  }

  // MARK: Registers

  func write(_ offset: UInt64, _ value: UInt32) {
    device.writeRegion(bar: 0, offset: offset, byteCount: 4, value: UInt64(value))
  }
  func read(_ offset: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: device.readRegion(bar: 0, offset: offset, byteCount: 4))
  }
  var sections: [String] { device.violations.first.map(\.section) }

  // MARK: Bringing the port up

  func reset() {
    write(0x0000, 1 << 26)
    while read(0x0000) & 1 << 26 != 0 {}
    write(0x0000, 1 << 6 | 1 << 0)
    for index in 0..<128 { write(0x5200 + 4 * UInt64(index), 0) }
  }

  /// - Parameters:
  ///   - rctl: bits besides EN and BSIZE.
  ///   - mrqc: nonzero turns RSS on.
  func start(
    rctl: UInt32 = 1 << 26 | 1 << 15, rxcsum: UInt32 = 0, mrqc: UInt32 = 0, filled: Int = 15
  ) {
    reset()
    for queue in 0..<2 { setRings(queue) }
    write(0x5008, isExtended ? 1 << 15 : 0)
    write(0x5000, rxcsum)
    if mrqc != 0 { write(0x5818, mrqc) }
    let size: UInt32 =
      switch bufferBytes {
      case 256: 3 << 16
      case 512: 2 << 16
      case 1024: 1 << 16
      default: 0
      }
    write(0x0400, 1 << 1 | 1 << 3)
    write(0x0100, rctl | size | 1 << 1)
    for queue in 0..<2 { give(filled, queue) }
  }

  private func setRings(_ queue: Int) {
    for (register, at) in [(0x2800, 0), (0x3800, 0x2000)] as [(UInt64, UInt64)] {
      let first = register + 0x100 * UInt64(queue)
      write(first, UInt32(Self.base + at + 0x1000 * UInt64(queue)))
      write(first + 4, 0)
      write(first + 8, UInt32(Self.ringEntries * 16))
      write(first + 0x10, 0)
      write(first + 0x18, 0)
    }
    transmitTail[queue] = 0
    receiveTail[queue] = 0
    receiveNext[queue] = 0
  }

  // MARK: Receiving

  func receiveRing(_ queue: Int) -> UnsafeMutableRawPointer { memory + 0x1000 * queue }

  func buffer(_ queue: Int, _ index: Int) -> Int {
    Self.receiveBuffers + (queue * Self.ringEntries + index) * 2048
  }

  /// Gives `count` more receive descriptors.
  func give(_ count: Int, _ queue: Int = 0) {
    for _ in 0..<count {
      let index = receiveTail[queue]
      let at = receiveRing(queue) + 16 * index
      at.storeBytes(of: Self.base + UInt64(buffer(queue, index)), as: UInt64.self)
      at.storeBytes(of: 0, toByteOffset: 8, as: UInt64.self)
      receiveTail[queue] = (index + 1) % Self.ringEntries
    }
    if count > 0 { write(0x2818 + 0x100 * UInt64(queue), UInt32(receiveTail[queue])) }
  }

  struct Received {
    var bytes: [UInt8]
    var low: UInt64
    var high: UInt64
    var status: UInt32
    var errors: UInt32
    var isLast: Bool
  }

  /// The next completed descriptor of those given, if there is one.
  func take(_ queue: Int = 0) -> Received? {
    let index = receiveNext[queue]
    if index == receiveTail[queue] { return nil }
    let at = receiveRing(queue) + 16 * index
    let low = at.load(as: UInt64.self)
    let high = at.load(fromByteOffset: 8, as: UInt64.self)
    let status = UInt32(truncatingIfNeeded: high >> (isExtended ? 0 : 32) & 0xff)
    if status & 1 == 0 { return nil }
    let length = Int(high >> (isExtended ? 32 : 0) & 0xffff)
    let errors = UInt32(truncatingIfNeeded: high >> (isExtended ? 24 : 40) & 0xff)
    receiveNext[queue] = (index + 1) % Self.ringEntries
    let bytes = UnsafeRawBufferPointer(
      start: memory + buffer(queue, index), count: min(length, 2048))
    return Received(
      bytes: Array(bytes), low: low, high: high, status: status, errors: errors,
      isLast: status & 2 != 0)
  }

  /// A whole frame, over as many descriptors as it has.
  func takeFrame(_ queue: Int = 0) -> (bytes: [UInt8], descriptors: Int)? {
    var bytes: [UInt8] = []
    var descriptors = 0
    while let piece = take(queue) {
      bytes += piece.bytes
      descriptors += 1
      if piece.isLast { return (bytes, descriptors) }
    }
    return nil
  }

  func run() {
    var left = 10_000
    while left > 0 && device.step() { left -= 1 }
  }

  // MARK: Sending

  func transmitDescriptor(_ queue: Int, _ index: Int) -> (low: UInt64, high: UInt64) {
    let at = memory + 0x2000 + 0x1000 * queue + 16 * index
    return (at.load(as: UInt64.self), at.load(fromByteOffset: 8, as: UInt64.self))
  }

  func put(_ low: UInt64, _ high: UInt64, _ queue: Int = 0) {
    let at = memory + 0x2000 + 0x1000 * queue + 16 * transmitTail[queue]
    at.storeBytes(of: low, as: UInt64.self)
    at.storeBytes(of: high, toByteOffset: 8, as: UInt64.self)
    transmitTail[queue] = (transmitTail[queue] + 1) % Self.ringEntries
  }

  func ring(_ queue: Int = 0) { write(0x3818 + 0x100 * UInt64(queue), UInt32(transmitTail[queue])) }

  /// Puts bytes into a transmit buffer.
  /// - Returns: its address.
  func place(_ bytes: [UInt8], at offset: Int = 0) -> UInt64 {
    bytes.withUnsafeBytes {
      (memory + Self.transmitBuffers + offset).copyMemory(
        from: $0.baseAddress!, byteCount: bytes.count)
    }
    return Self.base + UInt64(Self.transmitBuffers + offset)
  }

  /// EOP, IFCS, RS.
  static let whole: UInt64 = 1 << 24 | 1 << 25 | 1 << 27

  func sendLegacy(_ frame: [UInt8], command: UInt64 = RawDriver.whole, queue: Int = 0) {
    put(place(frame), UInt64(frame.count) | command, queue)
    ring(queue)
  }

  /// DEXT and type 1.
  static let data: UInt64 = 1 << 29 | 1 << 20

  // MARK: Interrupts

  func connect() {
    for vector in 0..<5 {
      let descriptor = eventfd(0, Int32(EFD_NONBLOCK))
      eventfds.append(descriptor)
      device.interrupts.connect(vector, descriptor)
    }
    // RXQ0 to vector 0, RXQ1 to 1, TXQ0 to 2, TXQ1 to 3, others to 4.
    write(0x00e4, 0x8 | 0x9 << 4 | 0xa << 8 | 0xb << 12 | 0xc << 16)
  }

  /// Interrupts of a vector since the last look.
  func interrupts(_ vector: Int) -> UInt64 {
    var count: UInt64 = 0
    return Glibc.read(eventfds[vector], &count, 8) == 8 ? count : 0
  }
}

extension RawDriver {
  /// Connects the INTx line.
  func connectLine() -> Int32 {
    let descriptor = eventfd(0, Int32(EFD_NONBLOCK))
    eventfds.append(descriptor)
    device.interrupts.connectLine(descriptor)
    return descriptor
  }

  func signals(_ descriptor: Int32) -> UInt64 {
    var count: UInt64 = 0
    return Glibc.read(descriptor, &count, 8) == 8 ? count : 0
  }
}
