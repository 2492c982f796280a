import EmulatedPCI
import PCI
import RadioLinkDevice
import Testing
import Wire

/// The model is strict: what RadioLink.md forbids is recorded, and where the device cannot go on it fails.
@Suite struct ModelTests {
  private func model() throws -> RadioLinkDevice {
    let device = RadioLinkDevice(wire: MemoryWire())
    device.writeConfiguration(6, at: 4, byteCount: 2)
    return device
  }

  private func write(_ device: RadioLinkDevice, _ offset: UInt64, _ value: UInt64) {
    device.writeRegion(bar: 0, offset: offset, byteCount: 4, value: value)
  }

  /// Rings of 32 descriptors at addresses that nothing is mapped at.
  private func enable(_ device: RadioLinkDevice, size: UInt64 = 32) {
    for (index, offset) in [0x40, 0x48, 0x50, 0x58].enumerated() {
      write(device, UInt64(offset), UInt64(0x1000 * (index + 1)))
    }
    write(device, 0x60, size)
    write(device, 0x64, 32)
    write(device, 0x08, 1)
  }

  private func sections(_ device: RadioLinkDevice) -> [Int] {
    device.violations.first.compactMap { Int($0.section.split(separator: " ")[1]) }
  }

  @Test func itsIdentityIsThatOfThePage() throws {
    let device = try model()
    #expect(device.readConfiguration(at: 0, byteCount: 4) == 0x10f2_1af4)
    #expect(device.readRegion(bar: 0, offset: 0, byteCount: 4) == 0x314b_4c52)
    #expect(device.readRegion(bar: 0, offset: 0x1c, byteCount: 4) == 1500)
    #expect(device.violations.count == 0)
  }

  @Test func forbiddenAccessesAreRecorded() throws {
    let device = try model()
    _ = device.readRegion(bar: 0, offset: 0, byteCount: 2)
    write(device, 0x0c, 1)
    write(device, 0x80, 1)
    write(device, 0x34, 4)
    #expect(sections(device) == [1, 2, 7, 1])
    enable(device)
    write(device, 0x60, 64)
    write(device, 0x08, 0)
    #expect(sections(device).suffix(2) == [2, 7])
    #expect(device.failure == .none)
  }

  @Test func ringsThatCannotBeMakeItFail() throws {
    let odd = try model()
    enable(odd, size: 33)
    #expect(odd.failure == .ringIndex && sections(odd) == [2])
    let jump = try model()
    enable(jump)
    write(jump, 0x80, 33)
    #expect(jump.failure == .ringIndex && sections(jump) == [3])
    #expect(jump.readRegion(bar: 0, offset: 0x0c, byteCount: 4) == 5)
    // Only a reset helps.
    write(jump, 0x08, 0x8000_0000)
    #expect(jump.failure == .none && !jump.isRunning)
    let unmapped = try model()
    enable(unmapped)
    write(unmapped, 0x84, 1)
    _ = unmapped.step()
    #expect(unmapped.failure == .access && unmapped.iommu.faultCount == 1)
  }
}
