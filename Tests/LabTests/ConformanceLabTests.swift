import CLinux
import Driver
import DriverConformance
import E1000e
import EmulatedPCI
import Glibc
import Memory
import PCI
import Supervisor
import Testing
import VFIO
import VirtioNet

/// A network function that is bound to vfio-pci and free, and the interface at the other end of its wire, in the lab's
/// guest.
private let address = getenv("MARTLET_LAB_NIC").map { String(cString: $0) }
private let peer = getenv("MARTLET_LAB_PEER").map { String(cString: $0) }
/// What the driver is to leave alone, by commas.
private let omissions = getenv("MARTLET_LAB_WITHOUT").map { String(cString: $0) }

/// The conformance suite on real hardware, as far as the guest's devices are that: real VFIO, a real IOMMU, and the
/// kernel's driver at the other end.
@Suite(.serialized, .enabled(if: address != nil))
struct ConformanceLabTests {
  @Test func theDriverConformsOnHardware() throws {
    let bench = try LabBench(try #require(address), peer: try #require(peer))
    let identity = PCIMatch(vendor: try bench.function.vendor, device: try bench.function.device)
    let results =
      E1000e.matches.contains(identity)
      ? ConformanceSuite<E1000e>.run { bench } : ConformanceSuite<VirtioNet>.run { bench }
    for name in results.passed { print("conforms: \(name)") }
    for reason in results.notPossible { print("not possible: \(reason)") }
    #expect(results.failures == [])
    #expect(results.passed.count >= 20)
  }
}

/// A function under the kernel's VFIO, and the kernel's interface at the far end of its wire.
private final class LabBench: NetworkBench {
  private let access: KernelVFIOAccess
  private let log: IOMMUFaultLog?
  private let socket: Int32
  private let memory: Arena
  let function: any PCIFunction
  let rings: DMARange
  let arena: DMARange
  private static let ringsBytes = 4 << 20
  private static let arenaBytes = 16 << 20

  init(_ address: String, peer: String) throws {
    access = try KernelVFIOAccess(address: address)
    log = IOMMUFaultLog(address: address)
    function = try KernelVFIOFunction(descriptor: access.descriptor, name: access.name)
    memory = try Arena(
      byteCount: Self.ringsBytes + Self.arenaBytes, pageSize: .ordinary, name: "lab-conformance")
    rings = DMARange(address: memory.address, iova: 0x1000_0000, byteCount: Self.ringsBytes)
    arena = DMARange(
      address: memory.address + Self.ringsBytes, iova: 0x2_4000_0000, byteCount: Self.arenaBytes)
    for (range, offset) in [(rings, 0), (arena, Self.ringsBytes)] {
      try access.mapDMA(
        DMAMemory(
          address: range.address, descriptor: memory.descriptor, offset: UInt64(offset),
          byteCount: UInt64(range.byteCount)), iova: range.iova, rights: [.read, .write])
    }
    socket = linux_open_frame_socket(peer)
    try #require(socket >= 0)
  }

  deinit { close(socket) }

  var requiresPlatformAccess: Bool { true }
  var without: [String] { (omissions ?? "").split(separator: ",").map(String.init) }
  /// A tenth of a second at least; on an emulated machine, where sleeping takes its time, several times that.
  var patience: Int { 1000 }
  var model: (any NetworkModel)? { nil }
  func setGone(_ gone: Bool) -> Bool { false }

  func step() -> Bool {
    usleep(100)
    return false
  }

  func inject(_ frames: [[UInt8]]) {
    for frame in frames {
      // The interface's queue is full now and then.
      for _ in 0..<1000 {
        if send(socket, frame, frame.count, 0) >= 0 { break }
        usleep(100)
      }
    }
  }

  func takeSent() -> [[UInt8]] {
    var frames: [[UInt8]] = []
    var buffer = [UInt8](repeating: 0, count: 16384)
    while true {
      let count = recv(socket, &buffer, buffer.count, 0)
      if count <= 0 { return frames }
      let frame = Array(buffer[..<count])
      // The kernel's own and those that go the other way are seen too.
      if TestFrame.isOwn(frame) { frames.append(frame) }
    }
  }

  func takeComplaints() -> [String] { log?.newFaults() ?? [] }
}
