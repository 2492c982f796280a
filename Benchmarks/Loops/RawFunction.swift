import ControlLoops
import Driver
import Glibc
import PCI
import Virtio
import VirtioTransports

/// Which of virtio's two kinds of ring (virtio 1.2, 2.7 and 2.8).
public enum RingFormat: Sendable {
  case split
  case packed
}

/// A network device that is only memory: it agrees to everything, and what it does to the rings is in C
/// (`raw_device.h`). One thread.
final class RawTransport: VirtioTransport {
  let deviceFeatures: VirtioFeatures
  private(set) var accepted: VirtioFeatures = []
  private(set) var status: VirtioStatus = []
  /// Queue 0 receives, queue 1 sends.
  private(set) var rings: [VirtqueueAddresses?] = [nil, nil]
  private unowned let raw: RawFunction
  var function: any PCIFunction { raw }

  init(_ function: RawFunction, _ format: RingFormat) {
    raw = function
    var features: VirtioFeatures = [.version1, .mergeableBuffers, .eventIndex]
    // Without the event index a packed ring's device says by a word that it wants no notification.
    if format == .packed {
      features.insert([.packedRing])
      features.remove(.eventIndex)
    }
    deviceFeatures = features
  }

  /// The device's side of a queue, after the driver has enabled it.
  func device(ofQueue queue: Int, at base: UnsafeMutableRawPointer, iova: UInt64) throws
    -> raw_device
  {
    guard let ring = rings[queue] else { throw UnsupportedLoop(description: "no queue \(queue)") }
    return raw_device(
      descriptors: base + Int(ring.descriptorArea - iova),
      driver_area: base + Int(ring.driverArea - iova),
      device_area: base + Int(ring.deviceArea - iova), size: UInt16(ring.size), next: 0, wrap: 1)
  }

  var queueCount: Int { 2 }
  func accept(_ features: VirtioFeatures) { accepted = features }
  func setStatus(_ status: VirtioStatus) { self.status = status }
  func reset() throws(DriverError) { status = [] }
  func maximumSize(ofQueue queue: Int) -> Int { queue < 2 ? 256 : 0 }
  func resetQueue(_ queue: Int) throws(DriverError) { rings[queue] = nil }
  func setConfigurationVector(_ vector: UInt16) throws(DriverError) {}
  func readInterruptStatus() -> UInt8 { 0 }

  func enable(
    _ queue: Int, _ ring: VirtqueueAddresses, vector: UInt16
  ) throws(DriverError) -> QueueDoorbell {
    rings[queue] = ring
    return QueueDoorbell(window: try window(), queue: UInt16(queue))
  }

  func readConfiguration<R>(_ body: (RegisterWindow) -> R) throws(DriverError) -> R {
    body(try window())
  }

  private func window() throws(DriverError) -> RegisterWindow {
    do throws(PCIError) {
      return try function.openRegion(bar: 0).window(at: 0, byteCount: 64)
    } catch {
      throw .pci(error)
    }
  }
}

/// What stands for the PCI function of a device that is only memory: no configuration, registers that nobody reads.
final class RawFunction: VirtioFunction {
  private let format: RingFormat
  private(set) var transport: RawTransport?
  // Invariant: 4096 zeroed bytes, until deinit: the registers.
  private let registers: UnsafeMutableRawPointer

  init(_ format: RingFormat) {
    self.format = format
    registers = .allocate(byteCount: 4096, alignment: 4096)
    registers.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
  }

  deinit { registers.deallocate() }

  func makeTransport() throws(DriverError) -> any VirtioTransport {
    let transport = RawTransport(self, format)
    self.transport = transport
    return transport
  }

  var name: String { "memory" }
  func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 { 0 }
  func writeConfiguration(_ value: UInt32, at offset: Int, width: RegisterWidth) throws(PCIError) {}
  func openRegion(bar: Int) throws(PCIError) -> RegisterRegion {
    let calls = RegisterCalls(
      context: registers, load: { _, _, _, _ in .max }, store: { _, _, _, _, _ in })
    return RegisterRegion(
      bar: bar, byteCount: 4096, calls: calls,
      mapped: [.init(offset: 0, byteCount: 4096, address: registers)])
  }
  var interrupts: InterruptCapability {
    get throws(PCIError) { InterruptCapability(kind: .msix, vectors: 3) }
  }
  func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {}
  func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {}
  func unmaskINTx() throws(PCIError) {}
  func reset() throws(PCIError) {}
}
