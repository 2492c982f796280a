import CLinux
import CSeccomp
import Glibc

/// Gives up everything that a driver host does not need, for good. Called before the first device register is
/// touched, in a process that was started in namespaces of its own and has one thread.
public enum Confinement {
  /// After this the process has an empty read-only root, no capability in any set, no way to gain one, no core
  /// dumps or files, and a list of system calls; any other one kills it.
  /// - Throws: the step that the kernel refused. The process should then exit.
  public static func enter() throws(ConfinementError) {
    try check("empty root", linux_empty_root())
    try check("drop capabilities", linux_drop_capabilities())
    // Another process of the same user may then not read its memory or trace it.
    try check("not dumpable", linux_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    try check("die with the supervisor", linux_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL), 0, 0, 0))
    try check("no core dumps", linux_limit(Int32(LINUX_RLIMIT_CORE), 0))
    try check("no files", linux_limit(Int32(LINUX_RLIMIT_FSIZE), 0))
    try check("no processes", linux_limit(Int32(LINUX_RLIMIT_NPROC), 0))
    try SystemCallFilter.driverHost.load()
  }

  private static func check(_ step: String, _ result: Int32) throws(ConfinementError) {
    if result < 0 { throw ConfinementError(step: step, errno: -result) }
  }
}

/// A step of the confinement that the kernel refused.
public struct ConfinementError: Error, Equatable, CustomStringConvertible {
  public var step: String
  public var errno: Int32

  public var description: String {
    "cannot confine the driver host (\(step)): \(String(cString: strerror(errno)))"
  }
}
