// A driver host whose driver is hostile, for Tests/System/escape.sh. Not part of Martlet.
import Driver
import EscapeAttempts
import Glibc
import Host

if CommandLine.arguments.dropFirst() == ["--list"] {
  for (index, name) in EscapeAttempt.names.enumerated() {
    print(name, String(cString: escape_attempt_expectation(Int32(index))))
  }
  exit(0)
}
if CommandLine.arguments.dropFirst() == ["--control"] { exit(escape_control()) }
exit(DriverHost.main(Array(CommandLine.arguments.dropFirst())) { try $0.visit(EscapeDriver.self) })
