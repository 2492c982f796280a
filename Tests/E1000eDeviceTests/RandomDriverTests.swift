import E1000eDevice
import EmulatedPCI
import Testing
import Wire

/// A driver that writes anything anywhere: the model counts it and lives.
@Suite struct RandomDriverTests {
  struct Generator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state >> 31 ^ state << 17
    }
    mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
  }

  /// Registers that lead far into the model.
  static let offsets: [UInt64] = [
    0x0000, 0x0018, 0x0020, 0x00c0, 0x00c8, 0x00d0, 0x00dc, 0x00e0, 0x00e4, 0x00e8, 0x0100, 0x0400,
    0x1000, 0x2800, 0x2804, 0x2808, 0x2810, 0x2818, 0x2820, 0x282c, 0x2900, 0x2908, 0x2918, 0x3800,
    0x3808, 0x3810, 0x3818, 0x3908, 0x3918, 0x5000, 0x5008, 0x5818, 0x5c00,
  ]

  @Test(arguments: 1...20 as ClosedRange<UInt64>) func doesNotBreakTheModel(seed: UInt64) throws {
    var random = Generator(state: seed)
    let driver = try RawDriver()
    driver.isExtended = seed % 2 == 0
    driver.start(rxcsum: seed % 3 == 0 ? 3 << 8 : 0)
    driver.connect()
    for _ in 0..<400 {
      switch random.below(8) {
      case 0:
        let offset = Self.offsets[random.below(Self.offsets.count)]
        driver.write(offset, UInt32(truncatingIfNeeded: random.next()))
      case 1:
        let width = [1, 2, 4, 8][random.below(4)]
        driver.device.writeRegion(
          bar: 0, offset: UInt64(random.below(0x20010)), byteCount: width, value: random.next())
      case 2:
        // Any descriptor of any ring, with an address that exists more often than not.
        let at = driver.memory + 0x1000 * random.below(4) + 16 * random.below(16)
        let address =
          random.below(4) == 0
          ? random.next() : RawDriver.base + UInt64(random.below(RawDriver.byteCount))
        at.storeBytes(of: address, as: UInt64.self)
        at.storeBytes(of: random.next(), toByteOffset: 8, as: UInt64.self)
      case 3:
        // A segmentation with a context of any kind.
        driver.put(
          random.next() & 0x00ff_3f3f_00ff_3f3f, random.next() & ~(0xf << 20) | 5 << 26 | 1 << 29)
        driver.put(
          RawDriver.base + UInt64(random.below(1 << 20)),
          UInt64(random.below(4000)) | RawDriver.data | RawDriver.whole | 1 << 26 | 3 << 40)
        driver.ring()
      case 4: driver.wire.arriving.append(frame(bytes: 14 + random.below(10_000)))
      case 5:
        var bytes = random.below(2) == 0 ? IPFrame().bytes() : IPFrame.ipv6().bytes()
        bytes[random.below(bytes.count)] = UInt8(truncatingIfNeeded: random.next())
        driver.wire.arriving.append(Array(bytes.prefix(14 + random.below(bytes.count - 13))))
      case 6: if random.below(10) == 0 { driver.start() }
      default: driver.device.malformReceive(Malformation.allCases[random.below(8)])
      }
      _ = driver.device.step()
    }
    #expect(driver.device.violations.count > 0)
    // It still works after a reset.
    driver.device.endFaults()
    driver.memory.initializeMemory(as: UInt8.self, repeating: 0, count: 0x10000)
    driver.wire.arriving = []
    driver.isExtended = false
    driver.start()
    driver.wire.sent = []
    driver.wire.arriving = [frame(filler: 77)]
    driver.sendLegacy(frame(filler: 78))
    driver.run()
    #expect(driver.take()?.bytes == frame(filler: 77))
    #expect(driver.wire.sent.map(\.frame) == [frame(filler: 78)])
  }
}
