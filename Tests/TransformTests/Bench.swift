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
  private let memory: DriverMemory

  init(_ additional: VirtioFeatures = [], withheld: VirtioFeatures = []) throws {
    var options = VirtioNetDevice.Options()
    options.additional = additional
    options.withheld = withheld
    device = VirtioNetDevice(wire: wire, options: options)
    memory = try DriverMemory(mappedIn: device.iommu, arenaByteCount: 4 << 20)
  }

  var rings: DMARange { memory.rings }
  var arena: DMARange { memory.arena }

  func resources(ringSize: Int = 64) -> DriverResources {
    DriverResources(
      function: InProcessFunction(device),
      rings: DMAZone(rings),
      arena: arena, ringSize: ringSize)
  }

  /// Puts a frame at place `number` of 4 KiB, cut at the given positions, and appends its slots.
  func place(
    _ frame: [UInt8], _ number: Int, cuts: [Int] = [], metadata: Offload? = nil,
    into burst: inout Burst
  ) {
    let unit = 4 * (number % 1000)
    let start = arena.address + unit * Descriptor.unit
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
