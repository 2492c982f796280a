import CLinux
import CSeccomp
import Glibc

/// Gives up everything that a driver host does not need, for good, in three steps: ``enter(reportingTo:)`` while the
/// process has one thread, ``close(_:)`` once all threads exist that it will ever have and before the first device register
/// is touched, ``closeLoop(_:)`` before the first packet. The process was started in namespaces of its own.
public enum Confinement {
  /// After this the process has an empty read-only root, no capability in any set, no way to gain one, and no right to any
  /// file; so have the threads that it makes from now on.
  /// - Parameter socket: hears of the system call that ends the process, where one does.
  /// - Returns: the version of Landlock that denies it all files; 0 where the kernel has none.
  /// - Throws: the step that the kernel refused. The process should then exit.
  public static func enter(reportingTo socket: Int32) throws(ConfinementError) -> Int {
    try check("empty root", linux_empty_root())
    try check("drop capabilities", linux_drop_capabilities())
    // Another process of the same user may then not read its memory or trace it.
    try check("not dumpable", linux_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    try check("die with the supervisor", linux_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL), 0, 0, 0))
    try check("reports of violations", linux_report_violations(socket))
    // The last signal that it may want: memory of a peer that has gone.
    linux_bus_guard_install()
    return try denyFiles()
  }

  /// Landlock, where the kernel has it; seen to work, as no file of /proc says so.
  private static func denyFiles() throws(ConfinementError) -> Int {
    let version = linux_landlock_version()
    if version <= 0 { return 0 }
    try check("Landlock", linux_landlock_deny_all(version))
    let root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    if root >= 0 {
      Glibc.close(root)
      throw ConfinementError(step: "Landlock lets the root be read", errno: EPERM)
    }
    return Int(version)
  }

  /// After this the process makes no thread, process, file or core dump, and all of its threads have a list of system
  /// calls: those of the loop, and what a driver needs to set up its device. Any other one ends it.
  /// - Throws: the step that the kernel refused. The process should then exit.
  public static func close(_ host: ConfinedHost) throws(ConfinementError) {
    try limitResources()
    try SystemCallFilter.initialisation(host).load()
  }

  /// No thread, process, file or core dump from now on.
  static func limitResources() throws(ConfinementError) {
    for limit in [
      LINUX_RLIMIT_CORE, LINUX_RLIMIT_FSIZE, LINUX_RLIMIT_NPROC, LINUX_RLIMIT_MEMLOCK,
      LINUX_RLIMIT_LOCKS, LINUX_RLIMIT_SIGPENDING, LINUX_RLIMIT_MSGQUEUE, LINUX_RLIMIT_NICE,
      LINUX_RLIMIT_RTPRIO,
    ] { try check("limits", linux_limit(Int32(limit), 0)) }
  }

  /// After this the process maps no more than it has and some room for its heap, and its threads are left with what the loop
  /// needs. No other thread may map memory meanwhile.
  /// - Throws: the step that the kernel refused. The process should then exit.
  public static func closeLoop(_ host: ConfinedHost) throws(ConfinementError) {
    try limitMemory(roomToGrow: host.roomToGrow)
    if !host.getsDescriptors {
      let count = UInt64(linux_descriptor_count())
      try check(
        "descriptor limit", linux_limit(Int32(LINUX_RLIMIT_NOFILE), count))
    }
    try SystemCallFilter.loop(host).load()
  }

  /// - Parameter roomToGrow: bytes that may be mapped beyond what is.
  static func limitMemory(roomToGrow: Int) throws(ConfinementError) {
    let mapped = linux_mapped_bytes()
    guard mapped > 0 else { throw ConfinementError(step: "memory limit", errno: EINVAL) }
    try check(
      "memory limit", linux_limit(Int32(LINUX_RLIMIT_AS), mapped + UInt64(roomToGrow)))
  }

  static func check(_ step: String, _ result: Int32) throws(ConfinementError) {
    if result < 0 { throw ConfinementError(step: step, errno: -result) }
  }
}

/// What a driver host does once it is confined, as far as its confinement depends on it.
public struct ConfinedHost: Sendable {
  /// How it reaches its device.
  public enum Access: Sendable {
    /// By requests to a descriptor of the kernel's VFIO.
    case kernelVFIO
    /// By messages over a socket.
    case messages
    /// The same, over a socket that is replaced when the device has gone and comes back.
    case replacedSocket
  }

  /// Its end of the socket to its supervisor.
  public var control: Int32
  /// Its device, to begin with.
  public var device: Int32
  public var access: Access
  /// Its end of the sockets that wake its only instance.
  public var instanceDoorbell: Int32
  /// Instances come and go, with memory and descriptors of theirs.
  public var isShared: Bool
  /// What ``Confinement/enter(reportingTo:)`` has returned.
  public var landlockVersion = 0

  public init(
    control: Int32, device: Int32, access: Access, instanceDoorbell: Int32, isShared: Bool
  ) {
    self.control = control
    self.device = device
    self.access = access
    self.instanceDoorbell = instanceDoorbell
    self.isShared = isShared
  }

  var getsDescriptors: Bool { isShared || access == .replacedSocket }

  /// Bytes that it may map in the loop beyond what it has: its heap, the first thread's stack, and with instances that come
  /// and go a channel and a ledger for each. Their memory takes the place of addresses that are mapped already.
  var roomToGrow: Int { isShared ? 1 << 30 : 32 << 20 }
}

/// A step of the confinement that the kernel refused.
public struct ConfinementError: Error, Equatable, CustomStringConvertible {
  public var step: String
  public var errno: Int32

  public var description: String {
    "cannot confine the driver host (\(step)): \(String(cString: strerror(errno)))"
  }
}
