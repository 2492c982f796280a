import CLinux
import Driver
import Edu
import EduDevice
import Glibc
import Memory
import PCI
import Testing
import VFIO

/// A function with MSI, played by another thread behind a socket.
@Test func eduRunsOverASocket() throws {
  let device = EduDevice()
  let served = ServedModel(device)
  let access = try VFIOUserAccess(path: served.path)
  let arena = try Arena(byteCount: 8192, pageSize: .ordinary, name: "edu")
  try access.mapDMA(
    DMAMemory(address: arena.address, descriptor: arena.descriptor, offset: 0, byteCount: 8192),
    iova: 0x10_0000, rights: [.read, .write])
  let memory = DMARange(address: arena.address, iova: 0x10_0000, byteCount: 8192)
  let fired = eventfd(0, Int32(EFD_NONBLOCK))
  defer { close(fired) }
  do {
    let function = try VFIOUserFunction(negotiated: access.descriptor, name: access.name)
    #expect(try function.interrupts == InterruptCapability(kind: .msi, vectors: 1))
    var driver = try Edu(
      DriverResources(
        function: function, rings: DMAZone(memory), arena: memory,
        interrupts: InterruptPlan(configuration: -1, queues: [fired])))
    try driver.start()
    func takeInterrupt(_ driver: borrowing Edu) throws -> UInt32 {
      var count: UInt64 = 0
      guard waits(for: fired), read(fired, &count, 8) == 8 else { return 0 }
      return try driver.takeInterrupt()
    }
    #expect(try driver.factorial(of: 10) == 3_628_800)
    #expect(try takeInterrupt(driver) == 0x001)
    for index in 0..<2048 {
      memory.address.storeBytes(
        of: UInt8(truncatingIfNeeded: index * 7), toByteOffset: index, as: UInt8.self)
    }
    try driver.copyToDevice(memory.part(at: 0, byteCount: 2048)!)
    #expect(try takeInterrupt(driver) == 0x100)
    try driver.copyFromDevice(memory.part(at: 4096, byteCount: 2048)!)
    #expect(try takeInterrupt(driver) == 0x100)
    #expect(memcmp(memory.address, memory.address + 4096, 2048) == 0)
    driver.stop()
  }
  try access.quiesce()
  served.end()
  #expect(device.violations == [] && device.iommu.faults == [])
  #expect(served.server.refusals.total == 0)
}
