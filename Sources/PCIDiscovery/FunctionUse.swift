import Glibc

/// Why a function is not free to be taken from its driver.
public enum FunctionUse: Sendable, Equatable {
  case interfaceUp(String)
  case interfaceAddress(String, address: String)
  case interfaceRoute(String, destination: String)
  /// Part of a bridge or a bond.
  case interfaceMaster(String, master: String)
  /// A network driver has the function and no interface shows: it was moved to another network namespace.
  case interfaceElsewhere(driver: String)
  case diskMounted(String, at: String)
  case diskSwap(String)
  /// Something is built on the disk, such as RAID, LVM or an encrypted volume.
  case diskHeld(String, holder: String)
  /// A disk controller whose disks cannot be told.
  case disksUnknown(driver: String)
  case groupMember(PCIAddress, driver: String)
  /// A process has the VFIO group open.
  case process(pid: Int32, name: String)
}

extension FunctionUse: CustomStringConvertible {
  public var description: String {
    switch self {
    case .interfaceUp(let name): "\(name) is up (`ip link set \(name) down`)"
    case .interfaceAddress(let name, let address):
      "\(name) has the address \(address) (`ip address flush dev \(name)`)"
    case .interfaceRoute(let name, let destination):
      "\(name) has the route to \(destination) (`ip route flush dev \(name)`)"
    case .interfaceMaster(let name, let master):
      "\(name) is part of \(master) (`ip link set \(name) nomaster`)"
    case .interfaceElsewhere(let driver):
      "the interface of its driver \(driver) is in another network namespace"
    case .diskMounted(let disk, let place): "\(disk) is mounted at \(place) (`umount \(place)`)"
    case .diskSwap(let disk): "\(disk) is swap space (`swapoff /dev/\(disk)`)"
    case .diskHeld(let disk, let holder): "\(disk) carries \(holder)"
    case .disksUnknown(let driver): "its driver \(driver) does not tell which disks it has"
    case .groupMember(let address, let driver):
      "\(address) of the same IOMMU group belongs to \(driver) (`martlet bind \(address)`)"
    case .process(let pid, let name): "process \(pid) (\(name)) holds its VFIO group"
    }
  }
}

extension PCIBus {
  /// What stands against taking the function, or giving it back. Empty where nothing does.
  public func uses(of function: DiscoveredFunction) -> [FunctionUse] {
    interfaceUses(function) + diskUses(function) + groupUses(function) + processUses(function)
  }

  // MARK: Interfaces

  private func interfaceUses(_ function: DiscoveredFunction) -> [FunctionUse] {
    if let driver = function.driver, function.isNetwork, !function.isBoundToVFIO,
      function.interfaces.isEmpty
    {
      return [.interfaceElsewhere(driver: driver)]
    }
    let addresses = machine.interfaceAddresses()
    return function.interfaces.flatMap { name -> [FunctionUse] in
      var uses: [FunctionUse] = []
      let isUp: UInt64 = 1
      if (machine.number("/sys/class/net/\(name)/flags") ?? 0) & isUp != 0 {
        uses.append(.interfaceUp(name))
      }
      uses += addresses.filter { $0.interface == name }.map {
        .interfaceAddress(name, address: $0.address)
      }
      if let destination = route(through: name) {
        uses.append(.interfaceRoute(name, destination: destination))
      }
      if let master = machine.linkName("/sys/class/net/\(name)/master") {
        uses.append(.interfaceMaster(name, master: master))
      }
      return uses
    }
  }

  /// The destination of the first route through an interface.
  private func route(through name: String) -> String? {
    for line in machine.lines("/proc/net/route").dropFirst() {
      let columns = line.split { $0 == "\t" || $0 == " " }
      guard columns.count > 7, columns[0] == name, let destination = UInt32(columns[1], radix: 16)
      else { continue }
      if destination == 0 { return "default" }
      // Written in the machine's byte order, and we are little-endian.
      let bytes = (0..<4).map { String(destination >> (8 * $0) & 0xff) }
      return bytes.joined(separator: ".")
    }
    for line in machine.lines("/proc/net/ipv6_route") {
      let columns = line.split(separator: " ")
      guard columns.count > 9, columns[9] == name else { continue }
      // Link-local and multicast routes come with every interface that is up.
      if columns[0].hasPrefix("fe80") || columns[0].hasPrefix("ff") { continue }
      if columns[0].allSatisfy({ $0 == "0" }) { return "default (IPv6)" }
      return "\(columns[0])/\(Int(columns[1], radix: 16) ?? 128)"
    }
    return nil
  }

  // MARK: Disks

  private func diskUses(_ function: DiscoveredFunction) -> [FunctionUse] {
    guard let folder = machine.realPath("/sys/bus/pci/devices/\(function.address)") else {
      return []
    }
    let disks = machine.entries("/sys/class/block").filter {
      machine.realPath("/sys/class/block/\($0)")?.hasPrefix(folder + "/") ?? false
    }
    let massStorage: UInt32 = 0x01
    let nonvolatileMemory: UInt32 = 0x08
    // With native multipath an NVMe disk does not lie below its controller.
    if disks.isEmpty, let driver = function.driver, !function.isBoundToVFIO,
      function.classCode >> 16 == massStorage,
      function.classCode >> 8 & 0xff == nonvolatileMemory
    {
      return [.disksUnknown(driver: driver)]
    }
    let mounts = mountPoints()
    let swaps = Set(
      machine.lines("/proc/swaps").dropFirst().compactMap {
        $0.split { $0 == " " || $0 == "\t" }.first?.split(separator: "/").last.map(String.init)
      })
    return disks.flatMap { disk -> [FunctionUse] in
      let number = machine.text("/sys/class/block/\(disk)/dev") ?? ""
      var uses: [FunctionUse] = []
      if let place = mounts[number] ?? mounts["/dev/\(disk)"] {
        uses.append(.diskMounted(disk, at: place))
      }
      if swaps.contains(disk) { uses.append(.diskSwap(disk)) }
      uses += machine.entries("/sys/class/block/\(disk)/holders").map {
        .diskHeld(disk, holder: $0)
      }
      return uses
    }
  }

  /// Where file systems are mounted, by device number ("8:1") and by source ("/dev/sda1"): some file systems have a
  /// number of their own (proc(5), mountinfo).
  private func mountPoints() -> [String: String] {
    var result: [String: String] = [:]
    for line in machine.lines("/proc/self/mountinfo") {
      let columns = line.split(separator: " ")
      guard columns.count > 6 else { continue }
      let place = String(columns[4])
      result[String(columns[2])] = result[String(columns[2])] ?? place
      if let separator = columns.firstIndex(of: "-"), separator + 2 < columns.count {
        let source = String(columns[separator + 2])
        if source.hasPrefix("/dev/") { result[source] = result[source] ?? place }
      }
    }
    return result
  }

  // MARK: The IOMMU group

  /// The kernel lets nobody have a group of which another driver has a part (vfio.rst); bridges do not count.
  func groupUses(_ function: DiscoveredFunction) -> [FunctionUse] {
    members(ofGroup: function.group).compactMap { member in
      guard member.address != function.address, let driver = member.driver, !member.isBridge,
        !member.isBoundToVFIO, driver != "pci-stub"
      else { return nil }
      return .groupMember(member.address, driver: driver)
    }
  }

  /// Processes that hold the group's node, as far as this user may see.
  func processUses(_ function: DiscoveredFunction) -> [FunctionUse] {
    guard function.isBoundToVFIO, let group = function.group else { return [] }
    let node = "/dev/vfio/\(group)"
    return machine.entries("/proc").compactMap { entry in
      guard let pid = Int32(entry) else { return nil }
      let holds = machine.entries("/proc/\(pid)/fd").contains {
        linkTarget("/proc/\(pid)/fd/\($0)") == node
      }
      guard holds else { return nil }
      return .process(pid: pid, name: machine.text("/proc/\(pid)/comm") ?? "?")
    }
  }

  private func linkTarget(_ path: String) -> String? {
    var buffer = [UInt8](repeating: 0, count: 256)
    let count = buffer.withUnsafeMutableBytes {
      readlink(machine.path(path), $0.baseAddress!, $0.count)
    }
    return count > 0 ? String(decoding: buffer[..<count], as: UTF8.self) : nil
  }
}
