import CLinux
import Driver
import Edu
import Glibc
import Memory
import PCI
import Supervisor
import Testing
import Trace
import VFIO

/// The address of QEMU's edu function, bound to vfio-pci and free, in the lab's guest.
let labEduAddress = getenv("MARTLET_LAB_EDU").map { String(cString: $0) }

/// The tutorial's driver on the function that it is for, behind a real IOMMU.
@Suite(.serialized, .enabled(if: labEduAddress != nil))
struct EduLabTests {
  let access: KernelVFIOAccess
  let function: KernelVFIOFunction
  /// Within the 28 bits that the function can address.
  static let iova: UInt64 = 0x10_0000

  init() throws {
    access = try KernelVFIOAccess(address: try #require(labEduAddress))
    function = try KernelVFIOFunction(descriptor: access.descriptor, name: access.name)
  }

  @Test func eduDoesAllThatItCanDo() throws {
    let log = try #require(IOMMUFaultLog(address: access.name))
    let arena = try Arena(byteCount: 8192, pageSize: .ordinary, name: "lab-edu")
    try access.mapDMA(
      DMAMemory(
        address: arena.address, descriptor: arena.descriptor, offset: 0,
        byteCount: UInt64(arena.byteCount)), iova: Self.iova, rights: [.read, .write])
    let memory = DMARange(address: arena.address, iova: Self.iova, byteCount: 8192)
    let source = try #require(memory.part(at: 0, byteCount: Edu.maximumTransfer))
    let target = try #require(memory.part(at: 4096, byteCount: Edu.maximumTransfer))
    for index in 0..<source.byteCount {
      source.address.storeBytes(
        of: UInt8(truncatingIfNeeded: index &* 31 &+ 7), toByteOffset: index, as: UInt8.self)
    }
    let fired = eventfd(0, Int32(EFD_NONBLOCK))
    defer { close(fired) }
    var trace = ""
    let recording = RecordingFunction(function, memory: [TracedMemory("memory", memory)]) {
      trace += $0
    }
    var driver = try Edu(
      DriverResources(
        function: recording, rings: DMAZone(memory), arena: memory,
        interrupts: InterruptPlan(configuration: -1, queues: [fired]),
        requiresPlatformAccess: true))
    try driver.start()
    #expect(try driver.factorial(of: 12) == 479_001_600)
    #expect(waitForSignal(fired) == 1)
    recording.interruptTaken(fired)
    #expect(try driver.takeInterrupt() == 0x001)
    try driver.copyToDevice(source, at: 512)
    #expect(waitForSignal(fired) == 1)
    recording.interruptTaken(fired)
    #expect(try driver.takeInterrupt() == 0x100)
    try driver.copyFromDevice(target, at: 512)
    #expect(waitForSignal(fired) == 1)
    recording.interruptTaken(fired)
    #expect(try driver.takeInterrupt() == 0x100)
    #expect(memcmp(source.address, target.address, source.byteCount) == 0)
    #expect(try function.interrupts.kind == .msi)
    driver.stop()
    #expect(try function.readConfiguration(at: 0x04, width: .word) & 1 << 2 == 0)
    #expect(log.newFaults() == [])
    recording.finish()
    #expect(try Trace(text: trace).mappings.count == 1)
    if let path = getenv("MARTLET_LAB_TRACE"), let file = fopen(path, "w") {
      fputs(trace, file)
      fclose(file)
    }
  }

  @Test func theInterruptLineIsTakenAndLetThroughAgain() throws {
    let fired = eventfd(0, Int32(EFD_NONBLOCK))
    defer { close(fired) }
    let nothing = DMARange(
      address: UnsafeMutableRawPointer(bitPattern: 4096)!, iova: 0, byteCount: 0)
    var driver = try Edu(
      DriverResources(
        function: LineFunction(function), rings: DMAZone(nothing), arena: nothing,
        interrupts: InterruptPlan(configuration: -1, queues: [fired])))
    try driver.start()
    for number: UInt32 in 3...5 {
      _ = try driver.factorial(of: number)
      #expect(waitForSignal(fired) == 1)
      #expect(try driver.takeInterrupt() == 0x001)
    }
    driver.stop()
  }

  @Test func whatIsNotMappedTheIOMMUKeepsFromIt() throws {
    let log = try #require(IOMMUFaultLog(address: access.name))
    var bytes = [UInt8](repeating: 7, count: 64)
    try bytes.withUnsafeMutableBytes { bytes in
      let memory = DMARange(address: bytes.baseAddress!, iova: 0x200_0000, byteCount: bytes.count)
      var driver = try Edu(
        DriverResources(function: function, rings: DMAZone(memory), arena: memory))
      try driver.start()
      try driver.copyFromDevice(memory)
      driver.stop()
    }
    #expect(bytes.allSatisfy { $0 == 7 })
    var faults: [String] = []
    for _ in 0..<50 where faults.isEmpty {
      usleep(20_000)
      faults = log.newFaults()
    }
    #expect(faults.first?.contains("fault addr 0x2000000") == true)
  }

  /// - Returns: the signals that came within a second.
  private func waitForSignal(_ descriptor: Int32) -> UInt64 {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    _ = poll(&entry, 1, 1000)
    var count: UInt64 = 0
    return read(descriptor, &count, 8) == 8 ? count : 0
  }
}

/// A function without its message-signalled interrupts.
private final class LineFunction: PCIFunction {
  private let function: any PCIFunction
  init(_ function: any PCIFunction) { self.function = function }

  var name: String { function.name }
  var interrupts: InterruptCapability { InterruptCapability(kind: .intx, vectors: 1) }
  func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    try function.readConfiguration(at: offset, width: width)
  }
  func writeConfiguration(_ value: UInt32, at offset: Int, width: RegisterWidth) throws(PCIError) {
    try function.writeConfiguration(value, at: offset, width: width)
  }
  func openRegion(bar: Int) throws(PCIError) -> RegisterRegion {
    try function.openRegion(bar: bar)
  }
  func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {
    try function.enableInterrupts(kind, eventfds: eventfds)
  }
  func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {
    try function.disableInterrupts(kind)
  }
  func unmaskINTx() throws(PCIError) { try function.unmaskINTx() }
  func reset() throws(PCIError) { try function.reset() }
}
