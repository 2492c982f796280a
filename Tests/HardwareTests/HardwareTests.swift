import EmulatedPCI
import Glibc
import PCI
import Testing
import Virtio
import VirtioNetDevice
import Wire

/// Registers as a driver that does what a test says, right or wrong.
final class RawDriver {
  let device: VirtioNetDevice
  let memory: UnsafeMutableRawPointer
  static let base: UInt64 = 0x10000
  static let byteCount = 1 << 16

  init(_ options: VirtioNetDevice.Options = .init()) throws {
    device = VirtioNetDevice(wire: MemoryWire(), options: options)
    memory = .allocate(byteCount: Self.byteCount, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: Self.byteCount)
    try device.iommu.map(
      iova: Self.base, byteCount: UInt64(Self.byteCount), address: memory, rights: [.read, .write])
    device.writeConfiguration(6, at: 4, byteCount: 2)
  }

  deinit { memory.deallocate() }

  func write(_ offset: Int, _ byteCount: Int, _ value: UInt64) {
    device.writeRegion(bar: 4, offset: UInt64(offset), byteCount: byteCount, value: value)
  }
  func read(_ offset: Int, _ byteCount: Int) -> UInt64 {
    device.readRegion(bar: 4, offset: UInt64(offset), byteCount: byteCount)
  }
  func setStatus(_ status: UInt64) { write(VirtioPCI.Common.deviceStatus, 1, status) }
  func accept(_ features: VirtioFeatures) {
    for half in 0..<2 {
      write(VirtioPCI.Common.driverFeatureSelect, 4, UInt64(half))
      write(VirtioPCI.Common.driverFeature, 4, features.rawValue >> UInt64(32 * half) & 0xffff_ffff)
    }
  }
  func setUp(_ features: VirtioFeatures = .version1) {
    setStatus(1)
    setStatus(3)
    accept(features)
    setStatus(11)
  }
  /// Enables a queue of 8 whose parts lie at `offset` in the memory.
  func enable(_ queue: UInt64, at offset: UInt64) {
    write(VirtioPCI.Common.queueSelect, 2, queue)
    write(VirtioPCI.Common.queueSize, 2, 8)
    for (field, part) in [
      (VirtioPCI.Common.queueDescriptors, 0), (VirtioPCI.Common.queueDriver, 0x400),
      (VirtioPCI.Common.queueDevice, 0x800),
    ] as [(Int, UInt64)] {
      write(field, 4, Self.base + offset + part)
      write(field + 4, 4, 0)
    }
    write(VirtioPCI.Common.queueEnable, 2, 1)
  }
  func descriptor(
    _ queue: Int, _ index: Int, _ iova: UInt64, _ length: UInt32, _ flags: UInt16, _ next: UInt16
  ) {
    let at = memory + queue + index * 16
    at.storeBytes(of: iova, as: UInt64.self)
    at.storeBytes(of: length, toByteOffset: 8, as: UInt32.self)
    at.storeBytes(of: flags, toByteOffset: 12, as: UInt16.self)
    at.storeBytes(of: next, toByteOffset: 14, as: UInt16.self)
  }
  /// Makes the chain at `head` the next available one.
  func makeAvailable(_ queue: Int, _ head: UInt16, index: UInt16 = 1) {
    let ring = memory + queue + 0x400
    ring.storeBytes(of: head, toByteOffset: 4 + Int(index - 1) % 8 * 2, as: UInt16.self)
    ring.storeBytes(of: index, toByteOffset: 2, as: UInt16.self)
  }
  func run(_ features: VirtioFeatures = .version1) {
    setUp(features)
    enable(0, at: 0)
    enable(1, at: 0x1000)
    setStatus(15)
  }
  var sections: [String] { device.violations.first.map(\.section) }
}

@Suite struct StrictDeviceTests {
  @Test func aRightHandshakeIsNoViolation() throws {
    let driver = try RawDriver()
    driver.run()
    #expect(driver.sections == [])
    #expect(driver.device.isRunning)
  }

  @Test func whatADriverDoesAgainstTheHandshakeIsRecorded() throws {
    let cases: [(String, (RawDriver) -> Void)] = [
      ("3.1.1", { $0.setStatus(2) }),
      (
        "3.1.1",
        {
          $0.setStatus(1)
          $0.setStatus(9)
        }
      ),
      (
        "3.1.1",
        {
          $0.setStatus(1)
          $0.setStatus(3)
          $0.setStatus(7)
        }
      ),
      (
        "2.1.1",
        {
          $0.setStatus(1)
          $0.setStatus(3)
          $0.setStatus(1)
        }
      ),
      (
        "2.1.1",
        {
          $0.setStatus(1)
          $0.setStatus(0x81)
          $0.setStatus(0x83)
        }
      ),
      ("2.2.1", { $0.setUp([.version1, .packedRing]) }),
      ("2.2.1", { $0.setUp([.version1, .controlReceive]) }),
      ("6.1", { $0.setUp([.checksum]) }),
      (
        "3.1.1",
        {
          $0.setUp()
          $0.accept([.version1, .checksum])
        }
      ),
      ("3.1.1", { $0.enable(0, at: 0) }),
      (
        "4.1.4.3.2",
        {
          $0.setUp()
          $0.write(VirtioPCI.Common.queueEnable, 2, 0)
        }
      ),
      (
        "4.1.4.3.2",
        {
          $0.setUp()
          $0.write(VirtioPCI.Common.queueSize, 2, 100)
        }
      ),
      (
        "4.1.4.3.2",
        {
          $0.setUp()
          $0.write(VirtioPCI.Common.queueSelect, 2, 9)
          $0.write(VirtioPCI.Common.queueSize, 2, 8)
        }
      ),
      (
        "4.1.4.3.2",
        {
          $0.run()
          $0.write(VirtioPCI.Common.queueSize, 2, 4)
        }
      ),
      (
        "2.7",
        {
          $0.setUp()
          $0.enable(0, at: 8)
        }
      ),
      ("4.1.3.1", { _ = $0.read(VirtioPCI.Common.deviceStatus, 4) }),
      ("4.1.3.1", { _ = $0.read(VirtioPCI.Common.queueSize, 1) }),
      ("4.1.4.3.2", { $0.write(VirtioPCI.Common.queueCount, 2, 1) }),
      ("4.1.5.1.2.2", { $0.write(VirtioPCI.Common.queueVector, 2, 77) }),
      ("5.1.4.2", { $0.write(0x2000, 1, 1) }),
      ("3.1.1", { $0.write(0x3000, 2, 0) }),
      (
        "4.1.5.2.1",
        {
          $0.run()
          $0.write(0x3000, 4, 0)
        }
      ),
    ]
    for (section, act) in cases {
      let driver = try RawDriver()
      act(driver)
      #expect(driver.sections.contains(section), "\(section): \(driver.device.violations.first)")
    }
  }

  @Test func whatADriverPutsOnARingIsChecked() throws {
    let header = RawDriver.base + 0x8000
    let queue = 0x1000
    let cases: [(String, VirtioFeatures, (RawDriver) -> Void)] = [
      ("2.7.6", .version1, { $0.makeAvailable(queue, 8) }),
      ("2.7.6.1", .version1, { $0.makeAvailable(queue, 0, index: 100) }),
      (
        "2.7.5.2", .version1,
        { d in
          d.descriptor(queue, 0, header, 100, 1, 1)
          d.descriptor(queue, 1, header, 100, 1, 0)
          d.makeAvailable(queue, 0)
        }
      ),
      (
        "2.7.5", .version1,
        { d in
          d.descriptor(queue, 0, header, 100, 1, 9)
          d.makeAvailable(queue, 0)
        }
      ),
      (
        "2.7.4.2", .version1,
        { d in
          d.descriptor(queue, 0, header, 100, 3, 1)
          d.descriptor(queue, 1, header, 100, 0, 0)
          d.makeAvailable(queue, 0)
        }
      ),
      (
        "2.7.5.3.1", .version1,
        { d in
          d.descriptor(queue, 0, header, 16, 4, 0)
          d.makeAvailable(queue, 0)
        }
      ),
      (
        "2.7.5.3.1", [.version1, .indirectDescriptors],
        { d in
          d.descriptor(queue, 0, header, 16, 5, 1)
          d.makeAvailable(queue, 0)
        }
      ),
      (
        "2.7.5.3.1", [.version1, .indirectDescriptors],
        { d in
          d.descriptor(queue, 0, header, 17, 4, 0)
          d.makeAvailable(queue, 0)
        }
      ),
      (
        "2.7.5.3.1", [.version1, .indirectDescriptors],
        { d in
          d.descriptor(queue, 0, header, 16, 4, 0)
          d.descriptor(0x8000, 0, header, 16, 4, 0)
          d.makeAvailable(queue, 0)
        }
      ),
      (
        "5.1.6.2", .version1,
        { d in
          d.descriptor(queue, 0, header, 12, 0, 0)
          d.makeAvailable(queue, 0)
        }
      ),
      (
        "5.1.6.2.1", .version1,
        { d in
          d.memory.storeBytes(of: 1, toByteOffset: 0x8000, as: UInt8.self)
          d.descriptor(queue, 0, header, 100, 0, 0)
          d.makeAvailable(queue, 0)
        }
      ),
      (
        "5.1.6.2.1", .version1,
        { d in
          d.descriptor(queue, 0, header, 12 + 2000, 0, 0)
          d.makeAvailable(queue, 0)
        }
      ),
      (
        "2.7.7.1", [.version1, .eventIndex],
        { d in
          (d.memory + queue + 0x400).storeBytes(of: 1, as: UInt16.self)
          d.descriptor(queue, 0, header, 100, 0, 0)
          d.makeAvailable(queue, 0)
        }
      ),
    ]
    for (section, features, act) in cases {
      let driver = try RawDriver()
      driver.run(features)
      act(driver)
      _ = driver.device.step()
      #expect(driver.sections.contains(section), "\(section): \(driver.device.violations.first)")
    }
  }

  @Test func memoryThatIsNotMappedIsAFault() throws {
    let driver = try RawDriver()
    driver.run()
    driver.descriptor(0x1000, 0, 0xdead_0000, 100, 0, 0)
    driver.makeAvailable(0x1000, 0)
    _ = driver.device.step()
    let fault = driver.device.iommu.faults.first
    #expect(fault?.iova == 0xdead_0000 && fault?.byteCount == 100 && fault?.isWrite == false)
    #expect(driver.device.iommu.faultCount == 1)
    #expect(driver.device.status.contains(.needsReset))
    // After a reset it works again.
    driver.setStatus(0)
    driver.run()
    #expect(driver.device.isRunning)
  }
}

@Suite struct CheckedIOMMUTests {
  @Test func mappingsThatMakeNoSenseAreRefused() throws {
    let iommu = CheckedIOMMU()
    try iommu.map(iova: 0x2000, byteCount: 0x1000, address: nil, rights: .read)
    for (iova, byteCount, error) in [
      (0, 0, .empty), (.max, 2, .wraps), (0x1fff, 2, .overlaps), (0x2fff, 1, .overlaps),
      (0x1000, 0x3000, .overlaps),
    ] as [(UInt64, UInt64, CheckedIOMMU.MapError)] {
      #expect(throws: error) {
        try iommu.map(iova: iova, byteCount: byteCount, address: nil, rights: .read)
      }
    }
    try iommu.map(iova: .max, byteCount: 1, address: nil, rights: .read)
    #expect(iommu.unmap(iova: 0x2000, byteCount: 0x800) == nil)
    #expect(iommu.unmap(iova: 0x2000, byteCount: 0x1000)?.count == 1)
    #expect(iommu.mappingCount == 1)
  }

  @Test func rightsAndBoundsHoldAcrossMappings() throws {
    let iommu = CheckedIOMMU()
    iommu.isBusMaster = true
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 0x2000, alignment: 4096)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 7, count: 0x2000)
    try iommu.map(iova: 0x1000, byteCount: 0x1000, address: memory, rights: .read)
    try iommu.map(
      iova: 0x2000, byteCount: 0x1000, address: memory + 0x1000, rights: [.read, .write])
    var bytes = [UInt8](repeating: 0, count: 100)
    let across = bytes.withUnsafeMutableBytes { iommu.read(0x1fd0, into: $0) }
    #expect(across && bytes == [UInt8](repeating: 7, count: 100))
    #expect(iommu.faultCount == 0)
    let refused = [
      bytes.withUnsafeBytes { iommu.write(0x1fd0, from: $0) },
      bytes.withUnsafeMutableBytes { iommu.read(0x2fd0, into: $0) },
      bytes.withUnsafeMutableBytes { iommu.read(.max - 10, into: $0) },
    ]
    #expect(refused == [false, false, false])
    #expect(iommu.faultCount == 3)
    iommu.isBusMaster = false
    #expect(iommu.pointer(0x1000, byteCount: 1, .read) == nil)
  }
}
