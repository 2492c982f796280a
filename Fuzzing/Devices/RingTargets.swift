import CLinux
import FuzzHarness
import Memory
import Rings
import Virtio

/// A split virtqueue whose device writes what it likes, while another thread changes the ring's memory.
let splitQueue = FuzzTarget("split-queue") { input in
  var input = input
  if input.number(UInt8.self) & 1 == 0 {
    exercise(SplitQueue<AnyOrder>.self, SplitDevice.self, input)
  } else {
    exercise(SplitQueue<InOrder>.self, SplitDevice.self, input)
  }
}

/// The same of a packed virtqueue.
let packedQueue = FuzzTarget("packed-queue") { input in
  var input = input
  if input.number(UInt8.self) & 1 == 0 {
    exercise(PackedQueue<AnyOrder>.self, PackedDevice.self, input)
  } else {
    exercise(PackedQueue<InOrder>.self, PackedDevice.self, input)
  }
}

/// A device's side of a ring: what an honest one would write next, but for what the input says otherwise.
private protocol RingDevice {
  init(_ memory: UnsafeMutableRawPointer, size: Int, driver: Int, device: Int)
  /// - Parameters:
  ///   - id: nil for what is due.
  ///   - skip: how far it then goes on in a packed ring.
  mutating func use(_ id: UInt32?, length: UInt32, skip: Int)
}

/// Offsets and sizes: virtio 1.2, 2.7.6 and 2.7.8.
private struct SplitDevice: RingDevice {
  let size: Int
  let available: UnsafeMutableRawPointer
  let used: UnsafeMutableRawPointer
  var next: UInt16 = 0

  init(_ memory: UnsafeMutableRawPointer, size: Int, driver: Int, device: Int) {
    self.size = size
    available = memory + driver
    used = memory + device
  }

  mutating func use(_ id: UInt32?, length: UInt32, skip: Int) {
    let place = Int(next) % size
    let due = UInt32(volatile_load16(available + 4 + 2 * place))
    volatile_store32(used + 4 + 8 * place, id ?? due)
    volatile_store32(used + 8 + 8 * place, length)
    next &+= UInt16(skip)
    volatile_store16(used + 2, next)
  }
}

/// Offsets and bits: virtio 1.2, 2.8.1 and 2.8.13.
private struct PackedDevice: RingDevice {
  let size: Int
  let ring: UnsafeMutableRawPointer
  var place = 0
  var wrap = true

  init(_ memory: UnsafeMutableRawPointer, size: Int, driver: Int, device: Int) {
    self.size = size
    ring = memory
  }

  mutating func use(_ id: UInt32?, length: UInt32, skip: Int) {
    let entry = ring + 16 * place
    volatile_store32(entry + 8, length)
    if let id { volatile_store16(entry + 12, UInt16(truncatingIfNeeded: id)) }
    volatile_store16(entry + 14, (wrap ? 1 << 7 | 1 << 15 : 0) | 1 << 1)
    place += skip
    while place >= size {
      place -= size
      wrap.toggle()
    }
  }
}

/// What the driver knows to be with the device: by the segment of each chain's slot.
private struct Posted {
  var writable: UInt32
  var descriptors: Int
}

private func exercise<Queue: Virtqueue & ~Copyable, Device: RingDevice>(
  _: Queue.Type, _: Device.Type, _ input: FuzzInput
) {
  var input = input
  let options = input.number(UInt8.self)
  let size = 1 << (1 + Int(options >> 1 & 3))
  let byteCount = Queue.byteCount(size: size)
  let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 4096)
  defer { memory.deallocate() }
  memory.initializeMemory(as: UInt8.self, repeating: 0)
  let start = memory.baseAddress!
  var queue = Queue(
    memory: DMARange(address: start, iova: 0x10000, byteCount: byteCount), size: size,
    usesEventIndex: options & 1 != 0)
  let seed = options & 0xe0 == 0xe0 ? UInt64(input.number(UInt32.self)) : 0
  var posted: [UInt32: Posted] = [:]
  Meddler.shared.change(memory, seed: seed) {
    while !input.isEmpty {
      var device = Device(
        start, size: size, driver: Int(queue.driverArea - 0x10000),
        device: Int(queue.deviceArea - 0x10000))
      do throws(RingError) {
        while !input.isEmpty { try step(&queue, &device, &input, &posted, memory) }
      } catch {
        require(queue.isBroken, "\(error), and the ring goes on")
        _ = error.description
      }
      while let slot = queue.takeOutstanding() {
        require(posted.removeValue(forKey: slot.segment) != nil, "a chain that was not outstanding")
      }
      require(posted.isEmpty, "\(posted.count) chains are lost")
      queue.restart()
    }
  }
}

private func step<Queue: Virtqueue & ~Copyable, Device: RingDevice>(
  _ queue: inout Queue, _ device: inout Device, _ input: inout FuzzInput,
  _ posted: inout [UInt32: Posted], _ memory: UnsafeMutableRawBufferPointer
) throws(RingError) {
  let verb = input.number(UInt8.self)
  let number = Int(verb >> 4)
  let segment = (0...).first { posted[$0] == nil }!
  switch verb & 15 {
  case 0, 1:
    guard queue.room > 0 else { return }
    var burst = Burst(capacity: 1)
    burst.append(Descriptor(segment: segment, length: UInt32(1 + number) * 128))
    queue.addWritable(burst, count: 1, base: 0)
    posted[segment] = Posted(writable: UInt32(1 + number) * 128, descriptors: 1)
  case 2:
    guard queue.room > 1 else { return }
    var chains = queue.newChains()
    chains.add(
      behind: DMARange(address: memory.baseAddress!, iova: 0x5000, byteCount: 12), iova: 4096,
      byteCount: 100, place: UInt64(segment), tag: 3)
    queue.add(chains)
    posted[segment] = Posted(writable: 0, descriptors: 2)
  case 3:
    let pieces = 1 + number % 4
    guard queue.room >= pieces else { return }
    var chain = queue.beginChain(iova: 4096, byteCount: 16)
    for _ in 1..<pieces { queue.extend(&chain, iova: 8192, byteCount: 64, writable: true) }
    queue.finish(chain, slot: Descriptor(segment: segment))
    posted[segment] = Posted(writable: UInt32(pieces - 1) * 64, descriptors: pieces)
  case 4, 5:
    queue.publish()
    _ = queue.shouldNotify()
  case 6, 7: device.use(nil, length: UInt32(number) * 64, skip: 1)
  case 8: device.use(UInt32(number), length: UInt32(input.number(UInt16.self)), skip: number & 3)
  case 9: device.use(input.number(UInt32.self), length: input.number(UInt32.self), skip: 1)
  case 10:
    let offset = Int(input.number(UInt16.self)) % (memory.count - 1)
    volatile_store16((memory.baseAddress! + (offset & ~1)), input.number(UInt16.self))
  case 11:
    if queue.arm() { queue.disarm() }
    _ = queue.shouldRemind()
  default: try take(&queue, limit: 1 + number, &posted)
  }
  // What another thread writes is not what the queue believes.
  let descriptors = posted.values.reduce(0) { $0 + $1.descriptors }
  require(queue.room + descriptors == queue.size, "\(queue.room) free, \(descriptors) posted")
  require(
    queue.outstanding == posted.count, "\(queue.outstanding) outstanding, not \(posted.count)")
}

private func take<Queue: Virtqueue & ~Copyable>(
  _ queue: inout Queue, limit: Int, _ posted: inout [UInt32: Posted]
) throws(RingError) {
  var burst = Burst(capacity: 16)
  defer {
    for index in 0..<burst.count {
      let slot = burst[index]
      guard let own = posted.removeValue(forKey: slot.segment) else {
        fatalError("chain \(slot.segment) is used, which was not outstanding")
      }
      require(slot.length <= own.writable, "\(slot.length) bytes in \(own.writable)")
    }
  }
  try queue.takeUsed(into: &burst, limit: limit)
}
