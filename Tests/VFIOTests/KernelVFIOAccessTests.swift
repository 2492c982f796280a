import CLinux
import Glibc
import PCI
import Testing

@testable import VFIO

/// A folder with what `KernelVFIOAccess` looks at below /sys and /dev.
final class FakeMachine {
  let root: String
  static let address = "0000:00:03.0"

  init(group: Int? = 4, driver: String? = "vfio-pci", nodes: [String] = ["vfio", "4"]) {
    var template = Array("/tmp/martlet-vfio-XXXXXX".utf8CString)
    root = String(cString: mkdtemp(&template)!)
    let function = "\(root)/sys/bus/pci/devices/\(Self.address)"
    var path = root
    for part in "sys/bus/pci/devices/\(Self.address)".split(separator: "/") {
      path += "/\(part)"
      mkdir(path, 0o755)
    }
    if let group { symlink("../../../kernel/iommu_groups/\(group)", "\(function)/iommu_group") }
    if let driver { symlink("../../drivers/\(driver)", "\(function)/driver") }
    mkdir("\(root)/dev", 0o755)
    mkdir("\(root)/dev/vfio", 0o755)
    for node in nodes { close(Glibc.open("\(root)/dev/vfio/\(node)", O_CREAT | O_WRONLY, 0o600)) }
  }

  deinit {
    let function = "\(root)/sys/bus/pci/devices/\(Self.address)"
    for path in [
      "\(function)/iommu_group", "\(function)/driver", function, "\(root)/sys/bus/pci/devices",
      "\(root)/sys/bus/pci", "\(root)/sys/bus", "\(root)/sys", "\(root)/dev/vfio/vfio",
      "\(root)/dev/vfio/4", "\(root)/dev/vfio", "\(root)/dev", root,
    ] { remove(path) }
  }

  func open(_ fake: FakeVFIO = FakeVFIO(), address: String = address) throws -> KernelVFIOAccess {
    try KernelVFIOAccess(address: address, root: root, requests: fake)
  }
}

@Suite struct KernelVFIOAccessTests {
  static let address = FakeMachine.address

  func expect(_ error: DeviceOpenError, _ body: () throws -> KernelVFIOAccess) {
    #expect(throws: error) { _ = try body() }
    #expect(!error.description.contains("\n"))
  }

  @Test func eachWayToFailHasAnErrorOfItsOwn() {
    let address = Self.address
    expect(.noSuchFunction(address: "0000:99:00.0")) {
      try FakeMachine().open(address: "0000:99:00.0")
    }
    expect(.noIOMMU(address: address)) { try FakeMachine(group: nil).open() }
    expect(.notBound(address: address, driver: nil)) { try FakeMachine(driver: nil).open() }
    expect(.notBound(address: address, driver: "virtio-pci")) {
      try FakeMachine(driver: "virtio-pci").open()
    }
    expect(.noVFIO) { try FakeMachine(nodes: []).open() }
    expect(.notBound(address: address, driver: nil)) { try FakeMachine(nodes: ["vfio"]).open() }
  }

  @Test func whatTheKernelRefusesIsNamedByItsCause() {
    let address = Self.address
    let cases: [(UInt, Int32, DeviceOpenError)] = [
      (LINUX_VFIO_GROUP_SET_CONTAINER, -EBUSY, .busy(address: address, group: 4)),
      (LINUX_VFIO_SET_IOMMU, -EPERM, .noInterruptRemapping(address: address)),
      (LINUX_VFIO_SET_IOMMU, -ENOMEM, .lockedMemory(limit: linux_locked_memory_limit())),
      (
        LINUX_VFIO_GROUP_GET_DEVICE_FD, -ENODEV,
        .system(call: "taking \(address) from its VFIO group", errno: ENODEV)
      ),
    ]
    for (request, result, error) in cases {
      let fake = FakeVFIO()
      fake.results[request] = result
      expect(error) { try FakeMachine().open(fake) }
    }
    let fake = FakeVFIO()
    fake.groupFlags = 0
    expect(.notViable(address: address, group: 4)) { try FakeMachine().open(fake) }
  }

  @Test func addressRangesComeFromTheKernelAndAreSorted() throws {
    let fake = FakeVFIO()
    fake.iommuInfo =
      words([0, UInt32(VFIO_IOMMU_INFO_CAPS)]) + words64([4096]) + words([24, 0])
      + words([1 | 1 << 16, 0, 2, 0])
      + words64([0xfef0_0000, 0x7f_ffff_ffff, 0, 0xfedf_ffff])
    let access = try FakeMachine().open(fake)
    #expect(access.iovaRanges == [0...0xfedf_ffff, 0xfef0_0000...0x7f_ffff_ffff])
    #expect(access.group == 4)
    #expect(linux_fcntl(access.descriptor, F_GETFD, 0) & FD_CLOEXEC != 0)
  }

  /// Counts beyond the answer, offsets outside it, a range that ends before it begins.
  @Test(arguments: [
    words([24, 0]) + words([1, 0, .max, 0]) + words64([5, 4]),
    words([.max, 0]), words([25, 0]), words([24, 0]) + words([7, 24, 0, 0]),
  ])
  func anAnswerThatMakesNoSenseIsNotReadOutside(tail: [UInt8]) throws {
    let fake = FakeVFIO()
    fake.iommuInfo = words([0, UInt32(VFIO_IOMMU_INFO_CAPS)]) + words64([4096]) + tail
    let ranges = try FakeMachine().open(fake).iovaRanges
    #expect(ranges.isEmpty || ranges == [0...0xfedf_ffff])
  }

  @Test func mapsCarryRightsAndAddress() throws {
    let fake = FakeVFIO()
    fake.iommuInfo = words([0, 0]) + words64([4096]) + words([0, 0])
    let machine = FakeMachine()
    let access = try machine.open(fake)
    let memory = DMAMemory(
      address: UnsafeMutableRawPointer(bitPattern: 0x10000)!, descriptor: -1, offset: 0,
      byteCount: 8192)
    try access.mapDMA(memory, iova: 0x1000_0000, rights: .read)
    let map = try #require(fake.maps.first)
    #expect(
      map.flags == UInt32(VFIO_DMA_MAP_FLAG_READ) && map.vaddr == 0x10000
        && map.iova == 0x1000_0000 && map.size == 8192)
    fake.results[LINUX_VFIO_IOMMU_MAP_DMA] = -ENOMEM
    #expect(throws: PCIError.lockedMemory(byteCount: 8192, limit: linux_locked_memory_limit())) {
      try access.mapDMA(memory, iova: 0x1000_0000, rights: [.read, .write])
    }
  }

  @Test func aQuietDeviceIsNoBusMaster() throws {
    let fake = FakeVFIO()
    fake.iommuInfo = words([0, 0]) + words64([4096]) + words([0, 0])
    fake.regions[7] = (readWrite, 256, nil)
    fake.resetResult = -EINVAL
    var command: UInt16 = 0x0006
    pwrite(fake.device, &command, 2, off_t(7 * FakeVFIO.regionStride + 4))
    try FakeMachine().open(fake).quiesce()
    pread(fake.device, &command, 2, off_t(7 * FakeVFIO.regionStride + 4))
    #expect(command == 0x0002)
    #expect(fake.events == ["reset"])
  }
}
