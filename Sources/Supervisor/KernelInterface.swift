import CLinux
import Glibc

/// The kernel stack's TAP interface in the network namespace of the command. It goes with its last descriptor.
enum KernelInterface {
  static func open(name: String) throws(SupervisorError) -> Int32 {
    let tap = linux_open_tap(name)
    switch -tap {
    case ..<1: return tap
    case ENOENT: throw .input("there is no /dev/net/tun: `modprobe tun`")
    case EPERM, EACCES:
      throw .input(
        "no right to make the interface \(name): run as root, or `chmod 0666 /dev/net/tun` in a network namespace of your own"
      )
    case EBUSY: throw .input("the interface \(name) exists and is in use")
    case let error: throw .system("making the interface \(name)", error)
    }
  }

  /// Gives it the NIC's address and MTU, and the IP address that was asked for.
  static func configure(
    name: String, _ plan: RunPlan, _ interface: InterfaceDescription
  ) throws(SupervisorError) {
    let ip = try Tool("ip", package: "iproute2")
    var commands = [
      [
        "link", "set", name, "address", interface.macAddress.description, "mtu", "\(interface.mtu)",
      ],
      ["addr", "add", plan.address.description, "dev", name], ["link", "set", name, "up"],
    ]
    if let gateway = plan.gateway {
      commands.append(["route", "add", "default", "via", gateway, "dev", name])
    }
    for command in commands {
      let (end, output) = try ip.run(command)
      guard end == .exited(0) else {
        throw .input("ip \(command.joined(separator: " ")): \(output)")
      }
    }
  }
}
