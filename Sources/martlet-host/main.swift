import Driver
import Glibc
import Host

exit(DriverHost.main(Array(CommandLine.arguments.dropFirst())) { try visitDrivers(&$0) })
