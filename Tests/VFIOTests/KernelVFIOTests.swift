import CLinux
import Glibc
import PCI
import Testing

@testable import VFIO

/// Answers VFIO's requests in the kernel's place. The device descriptor is a memfd, so that reads, writes and maps
/// of regions are real.
final class FakeVFIO: DeviceRequests {
  let device = linux_memfd_create("device", LINUX_MFD_CLOEXEC)
  static let regionStride: UInt64 = 1 << 16
  /// By region index: flags, size, sparse areas (nil: no such capability).
  var regions: [UInt32: (flags: UInt32, size: UInt64, sparse: [(UInt64, UInt64)]?)] = [:]
  var interrupts: [UInt32: (flags: UInt32, count: UInt32)] = [:]
  var deviceFlags = UInt32(VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET)
  var regionCount: UInt32 = 9
  var resetResult: Int32 = 0
  var iommuInfo: [UInt8] = []
  var groupFlags = UInt32(VFIO_GROUP_FLAGS_VIABLE)
  var results: [UInt: Int32] = [:]
  /// Where the chain of capabilities behind a region begins to lie.
  var corruptsChain = false
  private(set) var interruptSets: [[UInt32]] = []
  private(set) var maps: [vfio_iommu_type1_dma_map] = []
  private(set) var events: [String] = []

  init() { ftruncate(device, 1 << 20) }
  deinit { close(device) }

  func request(_ request: UInt, of descriptor: Int32, value: UInt) -> Int32 {
    if let result = results[request] { return result }
    switch request {
    case LINUX_VFIO_CHECK_EXTENSION: return 1
    case LINUX_VFIO_DEVICE_RESET:
      events.append("reset")
      return resetResult
    default: return 0
    }
  }

  func request(
    _ request: UInt, of descriptor: Int32, _ argument: UnsafeMutableRawPointer?
  ) -> Int32 {
    if let result = results[request] { return result }
    guard let argument else { return -EFAULT }
    switch request {
    case LINUX_VFIO_GROUP_GET_STATUS:
      argument.storeBytes(of: groupFlags, toByteOffset: 4, as: UInt32.self)
    case LINUX_VFIO_GROUP_GET_DEVICE_FD: return dup(device)
    case LINUX_VFIO_DEVICE_GET_INFO:
      argument.storeBytes(of: deviceFlags, toByteOffset: 4, as: UInt32.self)
      argument.storeBytes(of: regionCount, toByteOffset: 8, as: UInt32.self)
      argument.storeBytes(of: 5, toByteOffset: 12, as: UInt32.self)
    case LINUX_VFIO_DEVICE_GET_REGION_INFO: return region(argument)
    case LINUX_VFIO_DEVICE_GET_IRQ_INFO:
      let index = argument.load(fromByteOffset: 8, as: UInt32.self)
      let info = interrupts[index] ?? (0, 0)
      argument.storeBytes(of: info.flags, toByteOffset: 4, as: UInt32.self)
      argument.storeBytes(of: info.count, toByteOffset: 12, as: UInt32.self)
    case LINUX_VFIO_DEVICE_SET_IRQS:
      let size = Int(argument.load(as: UInt32.self))
      interruptSets.append(
        (0..<size / 4).map { argument.load(fromByteOffset: $0 * 4, as: UInt32.self) })
    case LINUX_VFIO_IOMMU_GET_INFO: return answer(iommuInfo, argument)
    case LINUX_VFIO_IOMMU_MAP_DMA:
      maps.append(argument.load(as: vfio_iommu_type1_dma_map.self))
    default: return 0
    }
    return 0
  }

  private func answer(_ bytes: [UInt8], _ argument: UnsafeMutableRawPointer) -> Int32 {
    let room = Int(argument.load(as: UInt32.self))
    bytes.prefix(room).withUnsafeBytes {
      argument.copyMemory(from: $0.baseAddress!, byteCount: $0.count)
    }
    argument.storeBytes(of: UInt32(bytes.count), as: UInt32.self)
    return 0
  }

  private func region(_ argument: UnsafeMutableRawPointer) -> Int32 {
    let index = argument.load(fromByteOffset: 8, as: UInt32.self)
    guard let region = regions[index] else { return -EINVAL }
    let hasSparse: UInt32 = region.sparse == nil ? 0 : UInt32(VFIO_REGION_INFO_FLAG_CAPS)
    var bytes = words([0, region.flags | hasSparse, index, hasSparse == 0 ? 0 : 32])
    bytes += words64([region.size, Self.regionStride * UInt64(index)])
    if let sparse = region.sparse {
      let next: UInt32 = corruptsChain ? 32 : 0
      bytes += words([
        corruptsChain ? 99 : 1, next, UInt32(corruptsChain ? 1 << 30 : sparse.count), 0,
      ])
      for area in sparse { bytes += words64([area.0, area.1]) }
    }
    return answer(bytes, argument)
  }
}

func words(_ values: [UInt32]) -> [UInt8] {
  values.flatMap { v in (0..<4).map { UInt8(truncatingIfNeeded: v >> ($0 * 8)) } }
}
func words64(_ values: [UInt64]) -> [UInt8] {
  values.flatMap { v in (0..<8).map { UInt8(truncatingIfNeeded: v >> ($0 * 8)) } }
}

let readWrite = UInt32(VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE)
let mappable = readWrite | UInt32(VFIO_REGION_INFO_FLAG_MMAP)

@Suite struct KernelVFIOFunctionTests {
  func make(_ change: (FakeVFIO) -> Void = { _ in }) throws -> (FakeVFIO, KernelVFIOFunction) {
    let fake = FakeVFIO()
    fake.regions[7] = (readWrite, 256, nil)
    fake.interrupts[2] = (UInt32(VFIO_IRQ_INFO_EVENTFD), 3)
    change(fake)
    return (
      fake, try KernelVFIOFunction(descriptor: fake.device, name: "0000:00:03.0", requests: fake)
    )
  }

  @Test func configurationSpaceIsTheConfigurationRegionAndEndsWithIt() throws {
    let (fake, function) = try make()
    try function.writeConfiguration(0x1af4_1041, at: 0, width: .dword)
    #expect(try function.readConfiguration(at: 2, width: .word) == 0x1af4)
    #expect(try function.readConfiguration(at: 0, width: .byte) == 0x41)
    var raw: UInt32 = 0
    pread(fake.device, &raw, 4, off_t(7 * FakeVFIO.regionStride))
    #expect(raw == 0x1af4_1041)
    for (offset, width) in [(256, RegisterWidth.byte), (-1, .byte), (254, .dword), (3, .word)] {
      #expect(throws: PCIError.self) { try function.readConfiguration(at: offset, width: width) }
      #expect(throws: PCIError.self) {
        try function.writeConfiguration(0, at: offset, width: width)
      }
    }
  }

  @Test func whatIsNoPCIDeviceIsRefused() {
    #expect(throws: PCIError.self) { try make { $0.deviceFlags = 0 } }
    #expect(throws: PCIError.self) { try make { $0.regionCount = 7 } }
  }

  @Test func registersAroundTheVectorTableAreMappedAndTheTableGoesByCalls() throws {
    let (fake, function) = try make { $0.regions[1] = (mappable, 0x3000, [(0x1000, 0x2000)]) }
    let region = try function.openRegion(bar: 1)
    let table = try region.window(at: 0, byteCount: 0x100)
    let registers = try region.window(at: 0x1000, byteCount: 0x2000)
    table.write32(0xdead_beef, at: 0x10)
    registers.write16(0x1234, at: 0x8)
    #expect(table.read32(at: 0x10) == 0xdead_beef)
    var bytes: UInt32 = 0
    pread(fake.device, &bytes, 4, off_t(FakeVFIO.regionStride + 0x10))
    #expect(bytes == 0xdead_beef)
    bytes = 0
    pread(fake.device, &bytes, 4, off_t(FakeVFIO.regionStride + 0x1008))
    #expect(bytes == 0x1234)
  }

  @Test(arguments: [0x2000, UInt64.max - 0xfff, 0x10, 0])
  func areasThatDoNotLieInTheRegionAreNotMapped(start: UInt64) throws {
    let (fake, function) = try make {
      $0.regions[0] = (mappable, 0x3000, [(start, start == 0 ? 0 : 0x2000)])
    }
    let window = try function.openRegion(bar: 0).window(at: 0, byteCount: 0x3000)
    window.write32(7, at: 0x2ffc)
    var value: UInt32 = 0
    pread(fake.device, &value, 4, 0x2ffc)
    #expect(value == 7)
  }

  @Test func aCapabilityChainThatLoopsOrLiesEnds() throws {
    let (_, function) = try make {
      $0.regions[0] = (mappable, 0x1000, [(0, 0x1000)])
      $0.corruptsChain = true
    }
    #expect(try function.openRegion(bar: 0).byteCount == 0x1000)
  }

  @Test func aRegionOfNoSizeOrOneThatOverflowsIsNone() throws {
    let (_, function) = try make {
      $0.regions[0] = (mappable, 0, nil)
      $0.regions[2] = (mappable, .max, nil)
      $0.regions[6] = (UInt32(VFIO_REGION_INFO_FLAG_READ), 0x1000, nil)
    }
    for bar in [0, 2, 6, -1] {
      #expect(throws: PCIError.noRegion(bar: bar)) { try function.openRegion(bar: bar) }
    }
  }

  @Test func interruptsAreSwitchedOnOnceAndOffAgain() throws {
    let (fake, function) = try make()
    #expect(try function.interrupts == InterruptCapability(kind: .msix, vectors: 3))
    try function.enableInterrupts(.msix, eventfds: [8, -1, 9])
    try function.enableInterrupts(.msix, eventfds: [8])
    try function.disableInterrupts(.msix)
    try function.disableInterrupts(.msix)
    let on = UInt32(VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER)
    let off = UInt32(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER)
    #expect(
      fake.interruptSets == [
        [32, on, 2, 0, 3, 8, .max, 9], [20, off, 2, 0, 0], [24, on, 2, 0, 1, 8],
        [20, off, 2, 0, 0],
      ])
    #expect(throws: PCIError.interruptsUnsupported(kind: .msix, vectors: 4)) {
      try function.enableInterrupts(.msix, eventfds: [1, 2, 3, 4])
    }
    #expect(throws: PCIError.interruptsUnsupported(kind: .msi, vectors: 1)) {
      try function.enableInterrupts(.msi, eventfds: [1])
    }
  }

  @Test func aPinInterruptIsLetThroughInTheCommandRegister() throws {
    let (fake, function) = try make { $0.interrupts = [0: (UInt32(VFIO_IRQ_INFO_EVENTFD), 1)] }
    try function.writeConfiguration(0x0406, at: 4, width: .word)
    try function.enableInterrupts(.intx, eventfds: [5])
    #expect(try function.readConfiguration(at: 4, width: .word) == 0x0006)
    try function.unmaskINTx()
    let unmask = UInt32(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK)
    #expect(fake.interruptSets.last == [20, unmask, 0, 0, 1])
  }

  @Test func aFunctionWithoutResetSaysSo() throws {
    for (flags, result) in [(VFIO_DEVICE_FLAGS_PCI, 0), (VFIO_DEVICE_FLAGS_PCI | 1, -EINVAL)] {
      let (_, function) = try make {
        $0.deviceFlags = UInt32(flags)
        $0.resetResult = Int32(result)
      }
      #expect(throws: PCIError.resetUnsupported) { try function.reset() }
    }
  }
}
