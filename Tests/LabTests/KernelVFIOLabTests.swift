import CLinux
import Driver
import Glibc
import Memory
import PCI
import Supervisor
import Testing
import VFIO
import VirtioNet

/// The address of a virtio-net function that is bound to vfio-pci and free, in the lab's guest. Nowhere else is any
/// of this run.
let labAddress = getenv("MARTLET_LAB_FUNCTION").map { String(cString: $0) }

/// The kernel's VFIO and a real IOMMU, without a process in between.
@Suite(.serialized, .enabled(if: labAddress != nil))
struct KernelVFIOLabTests {
  let access: KernelVFIOAccess
  let function: KernelVFIOFunction
  static let ringsIOVA: UInt64 = 0x1000_0000
  static let arenaIOVA: UInt64 = 0x2000_0000
  static let page: UInt64 = 4096

  init() throws {
    access = try KernelVFIOAccess(address: try #require(labAddress))
    function = try KernelVFIOFunction(descriptor: access.descriptor, name: access.name)
  }

  func memory(_ arena: borrowing Arena) -> DMAMemory {
    DMAMemory(
      address: arena.address, descriptor: arena.descriptor, offset: 0,
      byteCount: UInt64(arena.byteCount))
  }

  @Test func theFunctionIsWhatItIsSaidToBe() throws {
    #expect(try function.vendor == 0x1af4 && function.device == 0x1041)
    #expect(try function.capabilities().contains { $0.identifier == PCICapability.msix })
    let interrupts = try function.interrupts
    #expect(interrupts.kind == .msix && interrupts.vectors >= 3)
    #expect(throws: PCIError.self) {
      try function.readConfiguration(at: 4096, width: .dword)
    }
    #expect(throws: PCIError.noRegion(bar: 0)) { try function.openRegion(bar: 0) }
    // The vectors' table can be read, be it mapped or not.
    let table = try function.openRegion(bar: 1).window(at: 0, byteCount: 16)
    #expect(table.read32(at: 12) & 1 == 1)
  }

  @Test func theGroupIsHandedOutOnce() throws {
    #expect(throws: DeviceOpenError.busy(address: access.name, group: access.group)) {
      _ = try KernelVFIOAccess(address: access.name)
    }
  }

  @Test func mapsLieWhereTheIOMMUCanTranslate() throws {
    let ranges = access.iovaRanges
    #expect(ranges.count >= 2)
    // The interrupt window of x86.
    #expect(!ranges.contains { $0.contains(0xfee0_0000) })
    let arena = try Arena(byteCount: 1 << 20, pageSize: .ordinary, name: "lab")
    try access.mapDMA(memory(arena), iova: Self.arenaIOVA, rights: .read)
    // Twice the same address, one without pages, one in the hole.
    for iova in [Self.arenaIOVA, Self.arenaIOVA + 1, 0xfee0_0000] {
      #expect(throws: PCIError.self) {
        try access.mapDMA(memory(arena), iova: iova, rights: [.read, .write])
      }
    }
    try access.unmapDMA(iova: Self.arenaIOVA, byteCount: 1 << 20)
    #expect(throws: PCIError.self) {
      try access.unmapDMA(iova: Self.arenaIOVA, byteCount: 1 << 20)
    }
  }

  @Test func interruptsOfAnEarlierProcessDoNotStandInTheWay() throws {
    let descriptor = eventfd(0, Int32(EFD_NONBLOCK))
    defer { close(descriptor) }
    try function.enableInterrupts(.msix, eventfds: [descriptor])
    try access.quiesce()
    let next = try KernelVFIOFunction(descriptor: access.descriptor, name: access.name)
    try next.enableInterrupts(.msix, eventfds: [descriptor, descriptor, descriptor])
    try next.disableInterrupts(.msix)
  }

  /// A frame to everyone, from memory that the device may read; then from memory that it may not.
  @Test func whatIsNotMappedTheIOMMUStops() throws {
    let log = IOMMUFaultLog(address: access.name)
    guard let log else {
      Issue.record("the kernel's log cannot be read")
      return
    }
    let rings = try Arena(byteCount: 1 << 20, pageSize: .ordinary, name: "lab-rings")
    let arena = try Arena(byteCount: 1 << 20, pageSize: .ordinary, name: "lab-arena")
    try access.mapDMA(memory(rings), iova: Self.ringsIOVA, rights: [.read, .write])
    try access.mapDMA(memory(arena), iova: Self.arenaIOVA, rights: [.read, .write])
    #expect(try send(rings, arena) == 1)
    #expect(log.newFaults() == [])

    try access.unmapDMA(iova: Self.arenaIOVA, byteCount: UInt64(arena.byteCount))
    _ = try send(rings, arena)
    // The kernel writes its log a moment later.
    var faults: [String] = []
    for _ in 0..<50 where faults.isEmpty {
      usleep(20_000)
      faults = log.newFaults()
    }
    #expect(faults.first?.contains("fault addr 0x20000000") == true)

    // The function works on, as before.
    try access.quiesce()
    try access.mapDMA(memory(arena), iova: Self.arenaIOVA, rights: [.read, .write])
    #expect(try send(rings, arena) == 1)
    try access.quiesce()
    #expect(log.newFaults() == [])
  }

  /// Starts the driver, sends one frame and waits for its completion, stops the driver.
  /// - Returns: how many frames completed within a second.
  private func send(
    _ rings: borrowing Arena, _ arena: borrowing Arena
  ) throws -> Int {
    let fired = eventfd(0, Int32(EFD_NONBLOCK))
    defer { close(fired) }
    var driver = try VirtioNet(
      DriverResources(
        function: function,
        rings: DMAZone(
          DMARange(address: rings.address, iova: Self.ringsIOVA, byteCount: rings.byteCount)),
        arena: DMARange(
          address: arena.address, iova: Self.arenaIOVA, byteCount: arena.byteCount),
        interrupts: InterruptPlan(configuration: fired, queues: [fired]),
        requiresPlatformAccess: true))
    defer { driver.stop() }
    var pair = driver.takeQueuePair(0)
    try driver.start()
    let bytes: [UInt8] =
      [UInt8](repeating: 0xff, count: 6) + driver.interface.macAddress.array + [0x88, 0xb5]
      + [UInt8](repeating: 0, count: 46)
    arena.address.copyMemory(from: bytes, byteCount: bytes.count)
    var burst = Burst(capacity: 4)
    _ = pair.armInterrupts(transmit: true)
    burst.append(Descriptor(segment: 0, length: UInt32(bytes.count), tag: 7))
    try pair.transmit(&burst)
    var entry = pollfd(fd: fired, events: Int16(POLLIN), revents: 0)
    _ = poll(&entry, 1, 1000)
    var done = Burst(capacity: 4)
    try pair.completeTransmit(into: &done)
    return done.count
  }
}
