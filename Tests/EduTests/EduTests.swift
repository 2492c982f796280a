import CLinux
import Driver
import EduDevice
import EmulatedPCI
import Glibc
import Memory
import PCI
import Testing

@testable import Edu

/// The driver on the strict model, in one process.
final class Bench {
  let device: EduDevice
  let function: InProcessFunction
  let memory: DMARange
  let eventfd = CLinux.eventfd(0, Int32(EFD_NONBLOCK))

  init(
    _ options: EduDevice.Options = .init(), messageInterrupts: Bool = true,
    iova: UInt64 = 0x10_0000
  ) throws {
    device = EduDevice(options: options)
    function = InProcessFunction(device, messageInterrupts: messageInterrupts)
    memory = DMARange(
      address: .allocate(byteCount: 8192, alignment: 4096), iova: iova, byteCount: 8192)
    memory.address.initializeMemory(as: UInt8.self, repeating: 0, count: 8192)
    try device.iommu.map(
      iova: iova, byteCount: 8192, address: memory.address, rights: [.read, .write])
  }

  deinit {
    close(eventfd)
    memory.address.deallocate()
  }

  func resources(interrupts: Bool = false) -> DriverResources {
    DriverResources(
      function: function, rings: DMAZone(memory), arena: memory,
      interrupts: interrupts ? InterruptPlan(configuration: -1, queues: [eventfd]) : .none)
  }

  func driver(interrupts: Bool = false) throws -> Edu {
    var driver = try Edu(resources(interrupts: interrupts))
    try driver.start()
    return driver
  }

  /// How often the eventfd was signalled since the last time.
  func signals() -> UInt64 {
    var count: UInt64 = 0
    return read(eventfd, &count, 8) == 8 ? count : 0
  }

  func fill(_ range: DMARange, _ byte: (Int) -> UInt8) {
    for index in 0..<range.byteCount {
      range.address.storeBytes(of: byte(index), toByteOffset: index, as: UInt8.self)
    }
  }

  func bytes(_ range: DMARange) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: range.address, count: range.byteCount))
  }
}

@Test func factorialsAreComputed() throws {
  let bench = try Bench()
  let driver = try bench.driver()
  let expected: [UInt32: UInt32] = [0: 1, 1: 1, 5: 120, 12: 479_001_600, 13: 1_932_053_504, 34: 0]
  for (number, factorial) in expected { #expect(try driver.factorial(of: number) == factorial) }
  #expect(bench.device.violations == [])
}

@Test func memoryGoesThereAndBack() throws {
  let bench = try Bench()
  var driver = try bench.driver()
  let source = try #require(bench.memory.part(at: 0, byteCount: 2048))
  let target = try #require(bench.memory.part(at: 4096, byteCount: 2048))
  bench.fill(source) { UInt8(truncatingIfNeeded: $0 &* 7 &+ 3) }
  try driver.copyToDevice(source, at: 1000)
  #expect(Array(bench.device.buffer[1000..<3048]) == bench.bytes(source))
  #expect(bench.device.buffer[..<1000].allSatisfy { $0 == 0 })
  try driver.copyFromDevice(target, at: 1000)
  #expect(bench.bytes(target) == bench.bytes(source))
  let rest = try #require(bench.memory.part(at: 6144, byteCount: 2048))
  #expect(bench.bytes(rest).allSatisfy { $0 == 0 })
  driver.stop()
  #expect(!bench.device.configuration.isBusMaster)
  driver.stop()
  #expect(bench.device.violations == [] && bench.device.iommu.faults == [])
}

@Test(arguments: [true, false]) func theInterruptIsTaken(messages: Bool) throws {
  let bench = try Bench(messageInterrupts: messages)
  var driver = try bench.driver(interrupts: true)
  // More than once: the line has to be let through again.
  for number: UInt32 in 3...5 {
    _ = try driver.factorial(of: number)
    #expect(bench.signals() == 1)
    #expect(try driver.takeInterrupt() == 0x001)
    try driver.copyToDevice(try #require(bench.memory.part(at: 0, byteCount: 16)))
    #expect(bench.signals() == 1)
    #expect(try driver.takeInterrupt() == 0x100)
    #expect(bench.signals() == 0)
  }
  driver.stop()
  // What it raises now nobody hears.
  try bench.function.openRegion(bar: 0).window(at: 0, byteCount: 0xa0).write32(1, at: 0x60)
  #expect(bench.signals() == 0)
  #expect(bench.device.violations == [])
}

@Test func noInterruptIsAskedForWithoutAnEventfd() throws {
  let bench = try Bench()
  let driver = try bench.driver()
  _ = try driver.factorial(of: 5)
  try driver.copyToDevice(try #require(bench.memory.part(at: 0, byteCount: 16)))
  #expect(try driver.takeInterrupt() == 0)
}

@Test func whatTheDeviceCannotDoIsRefused() throws {
  let bench = try Bench()
  let driver = try bench.driver()
  for (offset, count) in [(0, 0), (0, 2049), (-1, 16), (2048, 2048), (4096, 1)] {
    let memory = DMARange(
      address: bench.memory.address, iova: bench.memory.iova, byteCount: count)
    #expect(throws: EduError.outsideBuffer(offset: offset, byteCount: count)) {
      try driver.copyToDevice(memory, at: offset)
    }
  }
  let reach: UInt64 = 1 << 28
  for iova in [reach, reach - 15, .max] {
    let memory = DMARange(address: bench.memory.address, iova: iova, byteCount: 16)
    #expect(throws: EduError.outOfReach(iova: iova)) { try driver.copyFromDevice(memory) }
  }
  #expect(bench.device.violations == [])
  let last = DMARange(address: bench.memory.address, iova: reach - 16, byteCount: 16)
  try driver.copyFromDevice(last)
  #expect(bench.device.iommu.faults.map(\.iova) == [reach - 16])
}

@Test func anotherDeviceIsNotDriven() throws {
  var options = EduDevice.Options()
  options.identification = .max
  let bench = try Bench(options)
  #expect(throws: EduError.notEdu(identification: .max)) { _ = try Edu(bench.resources()) }
}

@Test func aDeviceThatNeverFinishesIsGivenUp() throws {
  var options = EduDevice.Options()
  options.looksUntilDone = nil
  let bench = try Bench(options)
  let driver = try bench.driver()
  #expect(throws: EduError.timeout) { _ = try driver.factorial(of: 5) }
  #expect(bench.device.step())
  #expect(bench.device.violations == [])
}
