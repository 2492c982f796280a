import Glibc

/// One thing that a run needs: what was found, why it matters, and the command that mends it.
public struct ReadinessCheck: Sendable, Equatable {
  public enum State: String, Sendable { case ok, warning, failed }
  public var name: String
  public var state: State
  public var finding: String
  /// Why it matters; nil where all is well.
  public var reason: String?
  /// The exact command; nil where all is well.
  public var remedy: String?

  public init(
    name: String, state: State, finding: String, reason: String? = nil, remedy: String? = nil
  ) {
    self.name = name
    self.state = state
    self.finding = finding
    self.reason = reason
    self.remedy = remedy
  }

  static func ok(_ name: String, _ finding: String) -> ReadinessCheck {
    ReadinessCheck(name: name, state: .ok, finding: finding)
  }

  static func failed(_ name: String, _ finding: String, why: String, mend: String) -> ReadinessCheck
  {
    ReadinessCheck(name: name, state: .failed, finding: finding, reason: why, remedy: mend)
  }

  static func warning(
    _ name: String, _ finding: String, why: String, mend: String
  ) -> ReadinessCheck {
    ReadinessCheck(name: name, state: .warning, finding: finding, reason: why, remedy: mend)
  }
}

/// Whether this machine can run a driver in user space. Only reads.
public struct Readiness: Sendable {
  let bus: PCIBus
  let facts: KernelFacts
  var machine: Machine { bus.machine }

  /// What a run maps for the device by default, in bytes: receive part, transmit part, rings.
  static let mappedBytes: UInt64 = 68 << 20

  public init(machine: Machine = Machine(), facts: KernelFacts = .read()) {
    bus = PCIBus(machine: machine)
    self.facts = facts
  }

  /// - Parameter functions: those to look at besides the machine itself.
  public func checks(of functions: [DiscoveredFunction]) -> [ReadinessCheck] {
    [iommu, driver, container, hugepages, lockedMemory] + features
      + functions.flatMap { checks(of: $0) }
  }

  // MARK: VFIO

  private var iommu: ReadinessCheck {
    let units = machine.entries("/sys/class/iommu")
    let groups = machine.entries("/sys/kernel/iommu_groups")
    if !units.isEmpty && !groups.isEmpty {
      return .ok("IOMMU", "\(units.joined(separator: ", ")), \(groups.count) groups")
    }
    let isAMD = machine.text("/proc/cpuinfo")?.contains("AuthenticAMD") ?? false
    let option = isAMD ? "amd_iommu=on" : "intel_iommu=on"
    return .failed(
      "IOMMU", units.isEmpty ? "none" : "no groups",
      why: "without one a device reaches all of the memory, and VFIO does not hand it out",
      mend:
        "switch VT-d or AMD-Vi on in the firmware, or give the VM an emulated IOMMU (QEMU: -device intel-iommu,intremap=on), add \(option) to GRUB_CMDLINE_LINUX in /etc/default/grub, then: update-grub && reboot"
    )
  }

  private var driver: ReadinessCheck {
    machine.exists("/sys/bus/pci/drivers/vfio-pci")
      ? .ok("vfio-pci", "loaded")
      : .failed(
        "vfio-pci", "not loaded", why: "it is the kernel's driver that hands functions out",
        mend: "modprobe vfio-pci")
  }

  private var container: ReadinessCheck {
    let name = "VFIO"
    guard machine.exists("/dev/vfio/vfio") else {
      return .failed(
        name, "no /dev/vfio/vfio", why: "programs reach VFIO through it", mend: "modprobe vfio")
    }
    switch facts.hasType1 {
    case true?: return .ok(name, "/dev/vfio/vfio, type 1 IOMMU")
    case false?:
      return .failed(
        name, "no type 1 IOMMU", why: "it is what tells the IOMMU which memory a device may reach",
        mend: "modprobe vfio_iommu_type1")
    case nil:
      return .failed(
        name, "/dev/vfio/vfio cannot be opened", why: "programs reach VFIO through it",
        mend: "chmod 0666 /dev/vfio/vfio")
    }
  }

  // MARK: Memory

  private var hugepages: ReadinessCheck {
    let name = "huge pages"
    guard facts.hasHugepageMemory else {
      return .warning(
        name, "the kernel has none",
        why: "with ordinary pages the device and the processor look addresses up far more often",
        mend: "use a kernel with CONFIG_HUGETLBFS")
    }
    let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB"
    let free = machine.number("\(pool)/free_hugepages") ?? 0
    let needed = Self.mappedBytes >> 21
    if free >= needed { return .ok(name, "\(free) of 2 MiB free") }
    // Root's runs add what they lack, and take it away again.
    if facts.isRoot { return .ok(name, "\(free) of 2 MiB free; a run adds what it lacks") }
    let total = (machine.number("\(pool)/nr_hugepages") ?? 0) + needed - free
    return .warning(
      name, "\(free) of 2 MiB free, \(needed) needed",
      why: "a run falls back to ordinary pages, which are slower",
      mend: "sudo sysctl -w vm.nr_hugepages=\(total)")
  }

  private var lockedMemory: ReadinessCheck {
    let name = "locked memory"
    if facts.isRoot { return .ok(name, "no limit for root") }
    let limit = facts.lockedMemoryLimit
    if limit == .max { return .ok(name, "no limit") }
    if limit >= Self.mappedBytes { return .ok(name, "limit \(limit >> 20) MiB") }
    return .failed(
      name, "limit \(limit >> 10) KiB, \(Self.mappedBytes >> 10) KiB needed",
      why: "memory that a device reaches must stay where it is, and counts against the limit",
      mend: "sudo prlimit --pid $$ --memlock=unlimited")
  }

  // MARK: The kernel

  private var features: [ReadinessCheck] {
    let confinement = "the driver host is confined by it"
    return [
      userNamespaces,
      machine.exists("/proc/sys/kernel/seccomp/actions_avail")
        ? .ok("seccomp", "present")
        : .failed(
          "seccomp", "missing", why: confinement, mend: "use a kernel with CONFIG_SECCOMP_FILTER"),
      facts.landlock > 0
        ? .ok("Landlock", "version \(facts.landlock)")
        : .warning(
          "Landlock", "missing",
          why: "it would be one more wall around the driver host, besides its empty root",
          mend: "add lsm=landlock,lockdown,yama,integrity,apparmor to the kernel's command line"),
      facts.hasClone3 && facts.hasProcessDescriptors
        ? .ok("clone3, pidfd", "present")
        : .failed(
          "clone3, pidfd", "missing", why: "processes are started and watched with them",
          mend: "use Linux 5.4 or later, and a container that allows clone3"),
      machine.exists("/dev/net/tun")
        ? .ok("TAP", "/dev/net/tun")
        : .warning(
          "TAP", "no /dev/net/tun",
          why: "--stack kernel and the emulated device's wire end in TAP interfaces",
          mend: "modprobe tun"),
    ]
  }

  private var userNamespaces: ReadinessCheck {
    let name = "user namespaces"
    guard facts.userNamespace != 0 else { return .ok(name, "allowed") }
    var mend = "run it outside the container or change of root that forbids them"
    for (file, bad, key) in [
      (
        "kernel/apparmor_restrict_unprivileged_userns", UInt64(1),
        "kernel.apparmor_restrict_unprivileged_userns=0"
      ),
      ("kernel/unprivileged_userns_clone", 0, "kernel.unprivileged_userns_clone=1"),
      ("user/max_user_namespaces", 0, "user.max_user_namespaces=10000"),
    ] where machine.number("/proc/sys/\(file)") == bad { mend = "sudo sysctl -w \(key)" }
    return .failed(
      name, String(cString: strerror(facts.userNamespace)),
      why: "the driver host runs in one of its own", mend: mend)
  }
}
