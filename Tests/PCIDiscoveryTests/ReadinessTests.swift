import Glibc
import Testing

@testable import PCIDiscovery

@Suite struct ReadinessTests {
  let fabricated = FabricatedMachine()
  static let facts = KernelFacts(
    landlock: 2, hasHugepageMemory: true, hasProcessDescriptors: true, hasClone3: true,
    userNamespace: 0, isRoot: false, lockedMemoryLimit: .max, hasType1: true)

  /// A machine on which nothing is amiss.
  init() {
    fabricated.makeFolder("sys/class/iommu/dmar0")
    fabricated.addDriver("vfio-pci")
    fabricated.addFunction("0000:00:03.0", driver: "vfio-pci", group: 4)
    fabricated.file(
      "sys/kernel/iommu_groups/4/reserved_regions", "0x00000000fee00000 0x00000000feefffff msi\n")
    fabricated.file("dev/vfio/vfio", "")
    fabricated.file("dev/net/tun", "")
    fabricated.file("proc/sys/kernel/seccomp/actions_avail", "kill_process\n")
    fabricated.file("proc/sys/user/max_user_namespaces", "15000\n")
    fabricated.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "64\n")
    fabricated.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64\n")
  }

  func amiss(_ change: (inout KernelFacts) -> Void = { _ in }) -> [ReadinessCheck] {
    var facts = Self.facts
    change(&facts)
    let readiness = Readiness(machine: fabricated.machine, facts: facts)
    return readiness.checks(of: fabricated.bus.functions()).filter { $0.state != .ok }
  }

  /// The one check that is amiss, of that name, with reason and remedy.
  func only(
    _ name: String, _ state: ReadinessCheck.State = .failed, remedy: String,
    _ change: (inout KernelFacts) -> Void = { _ in }, at location: SourceLocation = #_sourceLocation
  ) {
    let found = amiss(change)
    #expect(found.map(\.name) == [name], sourceLocation: location)
    #expect(found.first?.state == state, sourceLocation: location)
    #expect(found.first?.remedy?.contains(remedy) == true, sourceLocation: location)
    #expect(found.first?.reason?.isEmpty == false, sourceLocation: location)
  }

  @Test func nothingIsAmissOnAReadyMachine() { #expect(amiss() == []) }

  @Test func noIOMMU() {
    rmdir("\(fabricated.root)/sys/class/iommu/dmar0")
    only("IOMMU", remedy: "intel_iommu=on")
    fabricated.file("proc/cpuinfo", "vendor_id : AuthenticAMD\n")
    only("IOMMU", remedy: "amd_iommu=on")
  }

  @Test func noContainer() {
    unlink("\(fabricated.root)/dev/vfio/vfio")
    only("VFIO", remedy: "modprobe vfio")
  }

  @Test func whatTheKernelLacks() {
    only("VFIO", remedy: "modprobe vfio_iommu_type1") { $0.hasType1 = false }
    only("VFIO", remedy: "chmod") { $0.hasType1 = nil }
    only("Landlock", .warning, remedy: "lsm=landlock") { $0.landlock = -ENOSYS }
    only("clone3, pidfd", remedy: "Linux 5.4") { $0.hasClone3 = false }
    only("huge pages", .warning, remedy: "CONFIG_HUGETLBFS") { $0.hasHugepageMemory = false }
  }

  @Test func limitsOfMemory() {
    only("locked memory", remedy: "prlimit") { $0.lockedMemoryLimit = 8 << 20 }
    #expect(
      amiss {
        $0.lockedMemoryLimit = 8 << 20
        $0.isRoot = true
      } == [])
    fabricated.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "4\n")
    only("huge pages", .warning, remedy: "vm.nr_hugepages=94")
    #expect(amiss { $0.isRoot = true } == [])
  }

  @Test func namespacesThatAreOff() {
    only("user namespaces", remedy: "change of root") { $0.userNamespace = EPERM }
    fabricated.file("proc/sys/kernel/unprivileged_userns_clone", "0\n")
    only("user namespaces", remedy: "kernel.unprivileged_userns_clone=1") {
      $0.userNamespace = EPERM
    }
    // Whatever the files say, the kernel has the last word.
    #expect(amiss() == [])
    fabricated.file("proc/sys/user/max_user_namespaces", "0\n")
    only("user namespaces", remedy: "user.max_user_namespaces") { $0.userNamespace = ENOSPC }
  }

  @Test func aGroupThatIsNotViableNamesWhoIsInTheWay() {
    fabricated.addFunction("0000:00:03.1", classCode: "0x0c0300", driver: "xhci_hcd", group: 4)
    let readiness = Readiness(machine: fabricated.machine, facts: Self.facts)
    let function = fabricated.bus.functions()[0]
    let found = readiness.checks(of: function).filter { $0.state == .failed }
    #expect(found.count == 1)
    #expect(found.first?.finding.contains("xhci_hcd") == true)
    #expect(found.first?.remedy == "martlet bind 0000:00:03.1")
  }

  @Test func reservedMemoryOfTheFirmware() {
    let regions = "sys/kernel/iommu_groups/4/reserved_regions"
    fabricated.file(regions, "0x7b000000 0x7f7fffff direct-relaxable\n")
    #expect(amiss() == [])
    fabricated.file(regions, "0x7b000000 0x7f7fffff direct\n")
    only("0000:00:03.0 reserved memory", remedy: "firmware")
  }

  @Test func aFunctionInUseIsAWarningThatSaysHow() {
    fabricated.setDriver("0000:00:03.0", "virtio-pci")
    fabricated.addInterface("eth1", on: "0000:00:03.0", flags: "0x1003")
    only("0000:00:03.0 driver", .warning, remedy: "martlet bind 0000:00:03.0")
  }
}
