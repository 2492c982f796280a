import CLinux
import CSeccomp
import Glibc

/// A system call that a confined process has made and that its filter does not allow, as the process said at its end
/// (``Confinement/enter(reportingTo:)``). A hostile one may have lied, or kept silent: its end does not depend on it.
public struct Violation: Sendable, Equatable, CustomStringConvertible {
  /// The AUDIT_ARCH value of linux/audit.h: by which table the number goes.
  public var architecture: UInt32
  public var number: UInt32
  /// The first three.
  public var arguments: [UInt64]

  /// - Parameter fields: `arch=`, `number=` and `arguments=`, hexadecimal.
  /// - Returns: nil where it is not what ``Confinement`` sends.
  public init?(_ fields: String) {
    var values: [Substring: Substring] = [:]
    for field in fields.split(separator: " ") {
      let parts = field.split(separator: "=", maxSplits: 1)
      if parts.count == 2 { values[parts[0]] = parts[1] }
    }
    let arguments = values["arguments"]?.split(separator: ",").map { UInt64($0, radix: 16) }
    guard let architecture = values["arch"].flatMap({ UInt32($0, radix: 16) }),
      let number = values["number"].flatMap({ UInt32($0, radix: 16) }),
      let arguments, arguments.count == 3, arguments.allSatisfy({ $0 != nil })
    else { return nil }
    self.architecture = architecture
    self.number = number
    self.arguments = arguments.compactMap(\.self)
  }

  /// As in "openat(0xffffff9c, 0x7f8e4c0b2a10, 0x80000)".
  public var description: String {
    let values = arguments.map { "0x" + String($0, radix: 16) }.joined(separator: ", ")
    return "\(name)(\(values))"
  }

  private var name: String {
    let native = seccomp_arch_native()
    let prefix =
      architecture == native ? "" : "of architecture 0x\(String(architecture, radix: 16)), "
    guard number <= Int32.max,
      let name = seccomp_syscall_resolve_num_arch(architecture, Int32(number))
    else { return "\(prefix)number \(number)" }
    defer { free(name) }
    return prefix + String(cString: name)
  }
}
