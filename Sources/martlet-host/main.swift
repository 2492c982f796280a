import Glibc
import Host
import VirtioNet

exit(
  DriverHost.main(Array(CommandLine.arguments.dropFirst())) { host in
    try host.drive(with: VirtioNet.self)
  })
