import Glibc

extension Readiness {
  /// Whether one function can be driven: its group, what uses it, what the firmware has reserved, who may open it.
  public func checks(of function: DiscoveredFunction) -> [ReadinessCheck] {
    guard let group = function.group else {
      return [
        .failed(
          "\(function.address)", "in no IOMMU group",
          why: "nothing would keep it from reaching all of the memory",
          mend: "martlet doctor, and mend its line IOMMU")
      ]
    }
    return [owner(function), viability(function, group), reserved(function, group)]
      + (function.isBoundToVFIO ? [permission(function, group)] : [])
  }

  private func owner(_ function: DiscoveredFunction) -> ReadinessCheck {
    let name = "\(function.address) driver"
    if function.isBoundToVFIO { return .ok(name, function.driver ?? "") }
    // The group is looked at in a line of its own.
    let group = bus.groupUses(function)
    let uses = bus.uses(of: function).filter { !group.contains($0) }
    guard uses.isEmpty else {
      return .warning(
        name, uses.map(\.description).joined(separator: "; "),
        why: "who takes it takes it from that use",
        mend: "free it as said, then: martlet bind \(function.address)")
    }
    return .ok(
      name,
      "\(function.driver ?? "none"), not in use: `martlet bind \(function.address)` takes it")
  }

  private func viability(_ function: DiscoveredFunction, _ group: Int) -> ReadinessCheck {
    let name = "\(function.address) group"
    let others = bus.groupUses(function)
    guard !others.isEmpty else {
      let count = bus.members(ofGroup: group).count
      return .ok(
        name, "group \(group), \(count == 1 ? "alone" : "\(count) functions, none in the way")")
    }
    let addresses = others.compactMap { use in
      if case .groupMember(let address, _) = use { return "\(address)" }
      return nil
    }
    return .failed(
      name, others.map(\.description).joined(separator: "; "),
      why:
        "the functions of a group can reach each other past the IOMMU: it is handed out whole or not at all",
      mend: addresses.map { "martlet bind \($0)" }.joined(separator: " && "))
  }

  /// Ranges that the firmware wants mapped one to one for a device (RMRR) cannot be kept under VFIO; those marked
  /// relaxable can (Linux, Documentation/ABI/testing/sysfs-kernel-iommu_groups).
  private func reserved(_ function: DiscoveredFunction, _ group: Int) -> ReadinessCheck {
    let name = "\(function.address) reserved memory"
    let direct = machine.lines("/sys/kernel/iommu_groups/\(group)/reserved_regions").compactMap {
      line -> String? in
      let columns = line.split(separator: " ")
      guard columns.count == 3, columns[2] == "direct" else { return nil }
      return "\(columns[0]) to \(columns[1])"
    }
    if direct.isEmpty { return .ok(name, "none in the way") }
    return .failed(
      name, direct.joined(separator: ", "),
      why: "the firmware reserves it for the device (RMRR), and the kernel then refuses VFIO",
      mend:
        "switch the firmware's use of the device off (remote management, legacy USB), then reboot")
  }

  private func permission(_ function: DiscoveredFunction, _ group: Int) -> ReadinessCheck {
    let name = "\(function.address) permission"
    let node = "/dev/vfio/\(group)"
    if access(machine.path(node), R_OK | W_OK) == 0 { return .ok(name, node) }
    return .failed(
      name, "\(node) is not for this user", why: "who drives it opens it",
      mend: "sudo martlet bind \(function.address) --user $USER")
  }
}
