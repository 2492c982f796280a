/// What a driver host still has that it should not have.
extension ProcessRights {
  /// Each in a line of its own, with what it means; none where nothing is left to take away from a driver host.
  public var weaknesses: [String] {
    var found: [String] = []
    func expect(_ holds: Bool, _ otherwise: String) { if !holds { found.append(otherwise) } }
    for (set, value) in capabilities.sorted(by: { $0.key < $1.key }) {
      expect(value.allSatisfy { $0 == "0" }, "it has capabilities: \(set) is \(value)")
    }
    expect(noNewPrivileges, "a program that it starts could gain privileges")
    switch seccompMode == 2 ? seccompFilters - inheritedFilters : 0 {
    case ...0: found.append("it may make any system call")
    case 1 where !isStandingBy:
      found.append("it may still do what only the start of its device needs")
    default: break
    }
    for kind in Self.namespaceKinds where !ownNamespaces.contains(kind) {
      expect(false, "its \(kind) namespace is ours, or cannot be seen")
    }
    expect((rootEntries ?? 0) == 0, "there are files in its root")
    expect(mounts.count <= 1, "it sees \(mounts.count) mounts")
    expect(mounts.allSatisfy(\.isReadOnly), "its root can be written")
    for limit in ["Max core file size", "Max file size", "Max locked memory", "Max processes"] {
      expect(limits[limit] == "0", "its limit \(limit) is \(limits[limit] ?? "unknown")")
    }
    if isStandingBy {
      let hasDevice = descriptors?.contains { $0.kind == "vfio-device" } ?? false
      expect(!hasDevice, "it stands by and has a device")
    } else {
      expect(limits["Max address space"] != "unlimited", "its memory is not limited")
    }
    for descriptor in descriptors ?? [] where !descriptor.isWanted {
      expect(false, "its descriptor \(descriptor.number) is \(descriptor.target)")
    }
    for thread in threads where !thread.isLikeTheFirst {
      expect(false, "thread \(thread.identifier) has other rights than the first one")
    }
    return found
  }

  /// Whether nothing is left to take away from a driver host.
  public var isConfined: Bool { weaknesses.isEmpty }

  /// What cannot be had here, and is no fault: of the kernel, or of an ordinary user.
  public var shortcomings: [String] {
    var found: [String] = []
    if !groups.isEmpty {
      found.append("groups \(groups.joined(separator: " ")): only root can have them dropped")
    }
    if landlockVersion == 0, seccompFilters > inheritedFilters {
      found.append(
        "Landlock, of which the kernel has none: files are out of reach by the other means only")
    }
    if let version = landlockVersion, (1..<4).contains(version) {
      found.append(
        "Landlock version \(version) knows no TCP: sockets are out of reach by the other means only"
      )
    }
    if rootEntries == nil || descriptors == nil {
      found.append("the kernel does not let this user see its root and descriptors")
    }
    return found
  }
}
