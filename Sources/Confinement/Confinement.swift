import CLinux
import CSeccomp
import Glibc

/// Gives up everything that a driver host does not need, for good. Called before the first device register is
/// touched, in a process that was started in namespaces of its own: ``dropRights()`` while it has one thread, then
/// ``close()`` once all threads exist that it will ever have.
public enum Confinement {
  /// After this the process has an empty read-only root, no capability in any set, and no way to gain one; so have the
  /// threads that it makes from now on.
  /// - Throws: the step that the kernel refused. The process should then exit.
  public static func dropRights() throws(ConfinementError) {
    try check("empty root", linux_empty_root())
    try check("drop capabilities", linux_drop_capabilities())
    // Another process of the same user may then not read its memory or trace it.
    try check("not dumpable", linux_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    try check("die with the supervisor", linux_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL), 0, 0, 0))
  }

  /// After this the process makes no thread, process, file or core dump, and all of its threads have a list of system
  /// calls; any other one kills it.
  /// - Throws: the step that the kernel refused. The process should then exit.
  public static func close(
    _ calls: SystemCallFilter = .driverHost
  ) throws(ConfinementError) {
    try check("no core dumps", linux_limit(Int32(LINUX_RLIMIT_CORE), 0))
    try check("no files", linux_limit(Int32(LINUX_RLIMIT_FSIZE), 0))
    try check("no processes", linux_limit(Int32(LINUX_RLIMIT_NPROC), 0))
    try calls.load()
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
