import Driver
import EmulatedPCI
import Memory
import PCI
import Virtio
import VirtioNet
import VirtioNetDevice
import Wire

/// A virtio driver on the strict model in one process, whose packets are changed as they leave.
final class Bench {
  let wire = MemoryWire()
  let device: VirtioNetDevice
  let rings: UnsafeMutableRawPointer
  let arena: UnsafeMutableRawPointer
  static let ringsBytes = 1 << 20
  static let arenaBytes = 4 << 20
  static let ringsIOVA: UInt64 = 0x10_0000
  static let arenaIOVA: UInt64 = 0x4000_0000

  init(_ additional: VirtioFeatures = [], withheld: VirtioFeatures = []) throws {
    var options = VirtioNetDevice.Options()
    options.additional = additional
    options.withheld = withheld
    device = VirtioNetDevice(wire: wire, options: options)
    rings = .allocate(byteCount: Self.ringsBytes, alignment: 4096)
    arena = .allocate(byteCount: Self.arenaBytes, alignment: 4096)
    arena.initializeMemory(as: UInt8.self, repeating: 0, count: Self.arenaBytes)
    try device.iommu.map(
      iova: Self.ringsIOVA, byteCount: UInt64(Self.ringsBytes), address: rings,
      rights: [.read, .write])
    try device.iommu.map(
      iova: Self.arenaIOVA, byteCount: UInt64(Self.arenaBytes), address: arena,
      rights: [.read, .write])
  }

  deinit {
    rings.deallocate()
    arena.deallocate()
  }

  var range: DMARange {
    DMARange(address: arena, iova: Self.arenaIOVA, byteCount: Self.arenaBytes)
  }

  func resources(ringSize: Int = 64) -> DriverResources {
    DriverResources(
      function: InProcessFunction(device),
      rings: DMAZone(
        DMARange(address: rings, iova: Self.ringsIOVA, byteCount: Self.ringsBytes)),
      arena: range, ringSize: ringSize)
  }

  /// Puts a frame at place `number` of 4 KiB, cut at the given positions, and appends its slots.
  func place(
    _ frame: [UInt8], _ number: Int, cuts: [Int] = [], metadata: Offload? = nil,
    into burst: inout Burst
  ) {
    let unit = 4 * (number % 1000)
    let start = arena + unit * Descriptor.unit
    let tag = UInt16(truncatingIfNeeded: number)
    if var metadata {
      metadata.tag = tag
      burst.append(metadata.slot)
    }
    let ends = cuts + [frame.count]
    var from = 0
    for (index, end) in ends.enumerated() {
      // A few bytes between pieces.
      let offset = from + 3 * index
      frame.withUnsafeBytes {
        (start + offset).copyMemory(from: $0.baseAddress! + from, byteCount: end - from)
      }
      burst.append(
        Descriptor(
          segment: UInt32(unit), offset: UInt32(offset), length: UInt32(end - from),
          flags: index < ends.count - 1 ? .more : [], tag: tag))
      from = end
    }
  }

  func frame(_ number: Int, byteCount: Int = 64) -> [UInt8] {
    [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]
      + (14..<byteCount).map { $0 == 20 ? 0 : UInt8(truncatingIfNeeded: $0 + number) }
  }
}

/// Adds one to byte 20 of each packet: a packet that was changed twice, or not, can be told on the wire.
struct Mark: TransmitTransform, ~Copyable {
  var runs = 0

  mutating func transform(_ packet: borrowing TransmitPacket) -> Bool {
    var at = 20
    var index = 0
    while at >= packet.piece(index).byteCount {
      at -= packet.piece(index).byteCount
      index += 1
    }
    packet.store8(packet.piece(index).load8(at: at) &+ 1, at: 20)
    runs += 1
    return true
  }
}
