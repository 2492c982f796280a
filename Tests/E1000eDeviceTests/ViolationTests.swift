import E1000eDevice
import EmulatedPCI
import Testing
import Wire

@Suite struct ViolationTests {
  /// What a driver does wrong, and the section that must be recorded.
  static let cases: [(name: String, section: String, act: @Sendable (RawDriver) -> Void)] = [
    (
      "byte access", "10.1.3",
      { $0.device.writeRegion(bar: 0, offset: 0x100, byteCount: 1, value: 0) }
    ),
    ("wide read", "10.1.3", { _ = $0.device.readRegion(bar: 0, offset: 0x100, byteCount: 8) }),
    ("no register", "10.2.1", { $0.write(0x1fffc, 0) }),
    ("no register to read", "10.2.1", { _ = $0.read(0x3000) }),
    ("read-only", "10.2.2", { $0.write(0x0008, 1) }),
    ("statistics", "10.2.7", { $0.write(0x4074, 0) }),
    ("write-only", "10.2.4", { _ = $0.read(0x00d8) }),
    ("reserved bits", "10.2.5", { $0.write(0x0100, 1 << 31 | 1 << 1) }),
    (
      "base alignment", "10.2.5",
      {
        $0.reset()
        $0.write(0x2800, 0x10_0008)
      }
    ),
    (
      "length", "10.2.6",
      {
        $0.reset()
        $0.write(0x3808, 100)
      }
    ),
    ("base while it runs", "10.2.5", { $0.write(0x2800, 0x10_0000) }),
    ("head while it runs", "10.2.6", { $0.write(0x3810, 0) }),
    ("tail beyond the ring", "10.2.5", { $0.write(0x2818, 16) }),
    ("tail over the head", "10.2.5", { $0.write(0x2818, 5) }),
    (
      "receiver without a ring", "10.2.5",
      {
        $0.reset()
        $0.write(0x0100, 1 << 1)
      }
    ),
    (
      "transmitter without a ring", "10.2.6",
      {
        $0.reset()
        $0.write(0x0400, 1 << 1)
      }
    ),
    (
      "tail without a ring", "10.2.6",
      {
        $0.reset()
        $0.write(0x3818, 1)
      }
    ),
    ("mode while it runs", "10.2.5", { $0.write(0x5000, 1 << 8) }),
    ("hash without a place", "7.1.11", { $0.start(mrqc: 1 | 1 << 16) }),
    ("vector", "10.2.4", { $0.write(0x00e4, 0xf) }),
    ("buffer size", "10.2.5", { $0.write(0x0100, 1 << 25 | 1 << 1) }),
    (
      "null transmit buffer", "7.2.9",
      {
        $0.put(0, 100 | RawDriver.whole)
        $0.ring()
      }
    ),
    (
      "mixed descriptors", "7.2.9",
      {
        $0.put($0.place(frame()), 50 | RawDriver.data)
        $0.put($0.place(frame()), 50 | RawDriver.whole)
        $0.ring()
      }
    ),
    ("too long", "7.2", { $0.sendLegacy(frame(bytes: 9300)) }),
    ("too short", "7.2", { $0.sendLegacy(frame(bytes: 16)) }),
    ("no CRC", "7.2.11", { $0.sendLegacy(frame(), command: 1 << 24) }),
    (
      "checksum outside", "7.2.9",
      {
        $0.put($0.place(frame()), 100 | RawDriver.whole | 1 << 26 | 200 << 16 | 20 << 40)
        $0.ring()
      }
    ),
    (
      "no context", "7.2.11",
      {
        $0.put($0.place(frame()), 100 | RawDriver.data | RawDriver.whole | 2 << 40)
        $0.ring()
      }
    ),
    (
      "segmentation without context", "7.3",
      {
        $0.putContext(IPFrame())
        $0.put($0.place(frame()), 100 | RawDriver.data | RawDriver.whole | 1 << 26)
        $0.ring()
      }
    ),
    (
      "impossible context", "7.2.10",
      {
        $0.putContext(IPFrame(), segmentBytes: 5)
        $0.ring()
      }
    ),
    (
      "context in a packet", "7.2.10",
      {
        $0.put($0.place(frame()), 50 | RawDriver.data)
        $0.putContext(IPFrame())
        $0.ring()
      }
    ),
    (
      "payload length", "7.3",
      {
        $0.putContext(IPFrame(), segmentBytes: 500)
        let bytes = IPFrame().bytes() + [0]
        $0.put(
          $0.place(bytes), UInt64(bytes.count) | RawDriver.data | RawDriver.whole | 1 << 26)
        $0.ring()
      }
    ),
    (
      "wrong pseudo-header", "7.2.11",
      {
        let packet = IPFrame(payload: (0..<100).map { UInt8($0) })
        let bytes = packet.bytes(checksum: 0)
        $0.putContext(packet)
        $0.put(
          $0.place(bytes), UInt64(bytes.count) | RawDriver.data | RawDriver.whole | 2 << 40)
        $0.ring()
      }
    ),
    (
      "unknown descriptor", "7.2.10",
      {
        $0.put($0.place(frame()), 100 | 1 << 29 | 5 << 20 | RawDriver.whole)
        $0.ring()
      }
    ),
    (
      "null receive buffer", "7.1.7.2",
      {
        $0.receiveRing(0).storeBytes(of: 0, as: UInt64.self)
        $0.wire.arriving = [frame()]
      }
    ),
    (
      "stale status", "7.1.3",
      {
        $0.receiveRing(0).storeBytes(of: 1 << 32, toByteOffset: 8, as: UInt64.self)
        $0.wire.arriving = [frame()]
      }
    ),
    ("delay of nothing", "10.2.6", { $0.sendLegacy(frame(), command: RawDriver.whole | 1 << 31) }),
  ]

  @Test(arguments: cases.indices) func isRecorded(_ index: Int) throws {
    let (name, section, act) = Self.cases[index]
    let driver = try RawDriver()
    driver.start()
    #expect(driver.sections == [])
    act(driver)
    driver.run()
    #expect(driver.sections.contains(section), "\(name): \(driver.device.violations.first)")
    #expect(driver.device.iommu.faultCount == 0)
  }

  @Test func theRecordIsBounded() throws {
    let driver = try RawDriver()
    for _ in 0..<1000 { driver.write(0x0008, 0) }
    #expect(driver.device.violations.count == 1000)
    #expect(driver.device.violations.first.count == 64)
  }
}
