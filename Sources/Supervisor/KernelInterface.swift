import CLinux
import Driver
import Glibc
import Steering

/// The kernel stack's TAP interface in the network namespace of the command. It goes with its last descriptor.
public enum KernelInterface {
  public static func open(name: String) throws(SupervisorError) -> Int32 {
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
    try configure(
      name: name, macAddress: interface.macAddress, mtu: interface.mtu, address: plan.address,
      gateway: plan.gateway)
  }

  /// Gives it a NIC's address and MTU, and IP addresses.
  /// - Parameters:
  ///   - address: nil for none.
  ///   - ipv6: where the NIC is shared, the IPv6 addresses that it may have: it makes none of its own then.
  public static func configure(
    name: String, macAddress: MACAddress, mtu: Int, address: StackAddress?, gateway: String?,
    ipv6: [NetworkAddress]? = nil
  ) throws(SupervisorError) {
    let ip = try Tool("ip", package: "iproute2")
    var commands = [["link", "set", name, "address", macAddress.description, "mtu", "\(mtu)"]]
    if ipv6 != nil { commands.append(["link", "set", name, "addrgenmode", "none"]) }
    if let address { commands.append(["addr", "add", address.description, "dev", name]) }
    for address in ipv6 ?? [] {
      let prefixLength = address.high >> 54 == 0xfe80 >> 6 ? 64 : 128
      commands.append(["addr", "add", "\(address)/\(prefixLength)", "dev", name])
    }
    commands.append(["link", "set", name, "up"])
    if let gateway { commands.append(["route", "add", "default", "via", gateway, "dev", name]) }
    for command in commands {
      let (end, output) = try ip.run(command)
      guard end == .exited(0) else {
        throw .input("ip \(command.joined(separator: " ")): \(output)")
      }
    }
  }
}
