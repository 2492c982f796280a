import ArgumentParser
import Glibc
import PCIDiscovery
import Supervisor

/// `martlet bind`: takes a function from the kernel's driver.
struct Bind: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Take a PCI function from the kernel's driver and give it to vfio-pci. Needs root.",
    discussion: """
      Refuses a function that is in use: its interface is up, has an address or a route, a disk behind it is mounted, \
      or others of its IOMMU group have drivers. The former driver is remembered: `martlet unbind` gives it back.

      \(CommandFailure.exitCodes)
      """)

  @Argument(help: "0000:04:00.1, 04:00.1 or the name of a network interface.")
  var address: String

  @Flag(help: "Take it although it is in use, or although Martlet has no driver for it.")
  var force = false

  @Option(
    help: ArgumentHelp(
      "Hand the IOMMU group to this user, who can then run Martlet on it without root.",
      valueName: "name"))
  var user: String?

  func run() throws {
    try reporting {
      let function = try find(address)
      let owner = try user.map(Self.owner)
      guard KnownDriver.driver(for: function) != nil || force || function.isBoundToVFIO else {
        throw CommandFailure(
          code: 1,
          text:
            "Martlet has no driver for \(function.address) (\(identity(function))): `martlet devices` shows for which it has; --force takes it all the same"
        )
      }
      let binding = FunctionBinding()
      do {
        // The module's own errors say more than modprobe's: what it cannot load is reported by bind.
        if let tool = try? Tool("modprobe", package: "kmod"), geteuid() == 0,
          access("/sys/bus/pci/drivers/vfio-pci", F_OK) != 0
        {
          _ = try? tool.run(["vfio-pci"])
        }
        let outcome = try binding.bind(function, force: force, owner: owner)
        print(line(function, outcome))
      } catch {
        throw CommandFailure.failed(error)
      }
    }
  }

  private func line(_ function: DiscoveredFunction, _ outcome: FunctionBinding.Outcome) -> String {
    let group = function.group.map(String.init) ?? "?"
    let whose = user.map { ", /dev/vfio/\(group) handed to \($0)" } ?? ""
    guard outcome.changed else { return "\(function.address) is bound to vfio-pci already\(whose)" }
    if !outcome.overridden.isEmpty {
      let uses = outcome.overridden.map(\.description).joined(separator: "; ")
      writeLine("martlet bind: taken although \(uses)", to: 2)
    }
    return
      "\(function.address): \(outcome.formerDriver ?? "no driver") -> vfio-pci, group \(group)\(whose)"
  }

  private static func owner(_ name: String) throws -> (user: UInt32, group: UInt32) {
    guard let entry = getpwnam(name) else {
      throw CommandFailure(code: 2, text: "there is no user \(name) on this machine")
    }
    return (entry.pointee.pw_uid, entry.pointee.pw_gid)
  }
}

/// The function that a user named.
func find(_ text: String) throws -> DiscoveredFunction {
  do {
    return try PCIBus().function(named: text)
  } catch {
    throw CommandFailure.input(error)
  }
}

/// Names where they are known, and ids.
func identity(_ function: DiscoveredFunction) -> String {
  func hexadecimal(_ value: UInt16) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 4 - digits.count) + digits
  }
  let ids = "\(hexadecimal(function.vendor)):\(hexadecimal(function.device))"
  let names = [function.vendorName, function.deviceName].compactMap { $0 }
  return (names + ["[\(ids)]"]).joined(separator: " ")
}
