import ArgumentParser
import PCIDiscovery

/// `martlet devices`: the network functions of this machine, and who has them.
struct Devices: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List network functions: Martlet's, the kernel's and others.",
    discussion: """
      * marks what is active: driven by a process, or an interface that is in use. "free" can be bound without harm.

      \(CommandFailure.exitCodes)
      """)

  @Flag(
    name: [.customShort("v"), .customLong("verbose")],
    help:
      "Say what stands against taking each, and show the features that driver and device agree on.")
  var isVerbose = false
  @Flag(name: .shortAndLong, help: "Functions that are no network functions too.") var all = false
  @Flag(help: "Print the list as JSON.") var json = false

  struct Entry: Encodable {
    var section: String
    var address: String
    var identity: String
    var kind: String?
    var driver: String?
    var formerDriver: String?
    var group: Int?
    var groupMembers: [String]
    var interfaces: [String]
    var martletDriver: String?
    var isActive: Bool
    var canBeTaken: Bool
    var uses: [String]
    var features: [String]?
    var featuresNote: String?
  }

  private static let sections = [
    ("martlet", "Bound to VFIO, for Martlet"), ("kernel", "Driven by the kernel"),
    ("other", "Without a driver, or none of Martlet's"),
  ]

  func run() throws {
    try reporting {
      let bus = PCIBus()
      let entries = bus.functions().filter {
        all || $0.isNetwork || $0.isBoundToVFIO || KnownDriver.driver(for: $0) != nil
      }.map { entry($0, bus) }
      if json { return try printJSON(entries) }
      for (section, title) in Self.sections {
        print("\(title):")
        let own = entries.filter { $0.section == section }
        if own.isEmpty { print("  none") }
        for entry in own { show(entry) }
      }
    }
  }

  private func entry(_ function: DiscoveredFunction, _ bus: PCIBus) -> Entry {
    let driver = KnownDriver.driver(for: function)
    let uses = bus.uses(of: function)
    let section: String
    if function.isBoundToVFIO {
      section = "martlet"
    } else {
      section = function.driver != nil && driver != nil ? "kernel" : "other"
    }
    var entry = Entry(
      section: section, address: "\(function.address)", identity: identity(function),
      kind: function.className, driver: function.driver,
      formerDriver: function.isBoundToVFIO ? FunctionBinding().former(of: function.address) : nil,
      group: function.group,
      groupMembers: bus.members(ofGroup: function.group).map { "\($0.address)" }
        .filter { $0 != "\(function.address)" },
      interfaces: function.interfaces, martletDriver: driver?.name,
      isActive: uses.contains(where: Self.isActivity),
      canBeTaken: driver != nil && function.group != nil && uses.isEmpty,
      uses: uses.map(\.description),
      features: nil, featuresNote: nil)
    guard isVerbose, driver != nil else { return entry }
    if function.isBoundToVFIO && uses.isEmpty {
      switch FeatureProbe.features(of: function) {
      case .success(let names): entry.features = names
      case .failure(let failure): entry.featuresNote = failure.text
      }
    } else {
      entry.featuresNote =
        function.isBoundToVFIO
        ? "in use; `martlet status` shows it"
        : "shown once it is bound: `martlet bind \(function.address)`"
    }
    return entry
  }

  /// Others of the group say nothing about the function itself.
  private static func isActivity(_ use: FunctionUse) -> Bool {
    if case .groupMember = use { return false }
    return true
  }

  private func show(_ entry: Entry) {
    let owner = entry.driver ?? "no driver"
    let former = entry.formerDriver.map { " (from \($0))" } ?? ""
    let group = entry.group.map { "group \($0)" } ?? "no IOMMU group"
    let interfaces = entry.interfaces.isEmpty ? "" : " " + entry.interfaces.joined(separator: ",")
    let state: String
    if entry.martletDriver == nil {
      state = "no Martlet driver"
    } else if entry.canBeTaken {
      state =
        entry.section == "martlet"
        ? "ready, \(entry.martletDriver!)" : "free, \(entry.martletDriver!)"
    } else {
      state = entry.group == nil ? "cannot be taken: no IOMMU" : "in use"
    }
    print(
      "\(entry.isActive ? "*" : " ") \(entry.address)  \(entry.identity)  \(owner)\(former)\(interfaces)  \(group)  \(state)"
    )
    guard isVerbose else { return }
    if !entry.groupMembers.isEmpty {
      print("      in its group: \(entry.groupMembers.joined(separator: " "))")
    }
    for use in entry.uses { print("      \(use)") }
    if let features = entry.features { print("      features: \(features.joined(separator: " "))") }
    if let note = entry.featuresNote { print("      features: \(note)") }
  }
}
