import Glibc

@testable import PCIDiscovery

/// A tree that looks like /sys, /proc, /dev and /run, with a kernel that answers writes to it as the real one does.
final class FabricatedMachine: @unchecked Sendable {
  let root: String
  var addresses: [(interface: String, address: String)] = []
  /// Which driver takes which function when it is asked to, by ids: drivers_probe without an override.
  var nativeDrivers: [String: String] = [:]
  /// Paths that answer with an errno, by their end.
  var failures: [String: Int32] = [:]
  /// Drivers that say yes and take nothing.
  var refusing: Set<String> = []
  private(set) var writes: [String] = []

  init() {
    var template = Array("/tmp/martlet-machine-XXXXXX".utf8CString)
    root = String(cString: mkdtemp(&template)!)
    for folder in [
      "sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/class/net", "sys/class/block",
      "sys/class/iommu", "sys/kernel/iommu_groups", "sys/module", "proc/self", "proc/net",
      "dev/vfio", "run",
    ] { makeFolder(folder) }
    file("sys/bus/pci/drivers_probe", "")
  }

  deinit { removeTree(root) }

  private func removeTree(_ path: String) {
    var status = stat()
    if lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR, let folder = opendir(path) {
      while let entry = readdir(folder) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) {
          String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        if name != "." && name != ".." { removeTree("\(path)/\(name)") }
      }
      closedir(folder)
    }
    remove(path)
  }

  var machine: Machine {
    Machine(
      root: root, interfaceAddresses: { [self] in addresses },
      write: { [self] path, text in kernelWrite(path, text) })
  }
  var bus: PCIBus { PCIBus(machine: machine) }
  var binding: FunctionBinding { FunctionBinding(machine: machine) }

  // MARK: Making

  func makeFolder(_ path: String) {
    var whole = root
    for part in path.split(separator: "/") {
      whole += "/\(part)"
      mkdir(whole, 0o755)
    }
  }

  func file(_ path: String, _ text: String) {
    let parts = path.split(separator: "/")
    makeFolder(parts.dropLast().joined(separator: "/"))
    let descriptor = open("\(root)/\(path)", O_WRONLY | O_CREAT | O_TRUNC, 0o644)
    let bytes = Array(text.utf8)
    _ = write(descriptor, bytes, bytes.count)
    close(descriptor)
  }

  func link(_ path: String, to target: String) {
    unlink("\(root)/\(path)")
    symlink(target, "\(root)/\(path)")
  }

  func addDriver(_ name: String) {
    for node in ["bind", "unbind"] { file("sys/bus/pci/drivers/\(name)/\(node)", "") }
  }

  func addFunction(
    _ address: String, vendor: String = "0x1af4", device: String = "0x1041",
    classCode: String = "0x020000", driver: String? = nil, group: Int? = 1
  ) {
    let folder = "sys/devices/pci0000:00/\(address)"
    makeFolder(folder)
    file("\(folder)/vendor", vendor + "\n")
    file("\(folder)/device", device + "\n")
    file("\(folder)/class", classCode + "\n")
    file("\(folder)/driver_override", "(null)\n")
    link("sys/bus/pci/devices/\(address)", to: "\(root)/\(folder)")
    if let group {
      makeFolder("sys/kernel/iommu_groups/\(group)/devices")
      link("\(folder)/iommu_group", to: "\(root)/sys/kernel/iommu_groups/\(group)")
    }
    if let driver {
      addDriver(driver)
      setDriver(address, driver)
      nativeDrivers[address] = driver
    }
  }

  func addInterface(_ name: String, on address: String, flags: String = "0x1002") {
    let folder = "sys/devices/pci0000:00/\(address)/virtio0/net/\(name)"
    file("\(folder)/flags", flags + "\n")
    link("\(folder)/device", to: "../..")
    link("sys/class/net/\(name)", to: "\(root)/\(folder)")
  }

  func addDisk(_ name: String, on address: String, number: String) {
    let folder = "sys/devices/pci0000:00/\(address)/virtio1/block/\(name)"
    file("\(folder)/dev", number + "\n")
    makeFolder("\(folder)/holders")
    link("sys/class/block/\(name)", to: "\(root)/\(folder)")
  }

  // MARK: The kernel

  func driver(_ address: String) -> String? {
    machine.linkName("/sys/bus/pci/devices/\(address)/driver")
  }

  func setDriver(_ address: String, _ driver: String?) {
    let path = "sys/devices/pci0000:00/\(address)/driver"
    let before = self.driver(address)
    unlink("\(root)/\(path)")
    if let driver { symlink("\(root)/sys/bus/pci/drivers/\(driver)", "\(root)/\(path)") }
    let group = machine.linkName("/sys/bus/pci/devices/\(address)/iommu_group")
    guard let group else { return }
    if driver == "vfio-pci" {
      file("dev/vfio/\(group)", "")
    } else if before == "vfio-pci" {
      unlink("\(root)/dev/vfio/\(group)")
    }
  }

  private func kernelWrite(_ path: String, _ text: String) -> Int32 {
    let path = String(path.dropFirst(root.utf8.count + 1))
    writes.append(
      "\(path.split(separator: "/").suffix(2).joined(separator: "/")) \(text.filter { $0 != "\n" })"
    )
    for (end, error) in failures where path.hasSuffix(end) { return error }
    let parts = path.split(separator: "/").map(String.init)
    if path.hasSuffix("driver_override") {
      file("sys/devices/pci0000:00/\(parts[4])/driver_override", text == "\n" ? "(null)\n" : text)
      return 0
    }
    if path.hasSuffix("/unbind") {
      guard driver(text) == parts[4] else { return ENODEV }
      setDriver(text, nil)
      return 0
    }
    let override = machine.text("/sys/bus/pci/devices/\(text)/driver_override")
    let chosen = override == "(null)" ? nil : override
    let driver = path.hasSuffix("/bind") ? parts[4] : chosen ?? nativeDrivers[text]
    if path.hasSuffix("/bind"), let chosen, chosen != driver { return ENODEV }
    guard self.driver(text) == nil else { return path.hasSuffix("/bind") ? EBUSY : 0 }
    if let driver, !refusing.contains(driver) { setDriver(text, driver) }
    return 0
  }
}
