import CLinux
import Glibc

/// What a stage's process has, as far as its confinement depends on it. It begins with ``Confinement/enter(reportingTo:)``,
/// as a driver host does, and has one thread.
public struct ConfinedStage: Sendable {
  /// Its end of the socket to its supervisor.
  public var control: Int32
  /// Its end of the sockets by which the host wakes it.
  public var doorbell: Int32

  /// - Parameters:
  ///   - control: the socket to the supervisor.
  ///   - doorbell: its end of what wakes it.
  public init(control: Int32, doorbell: Int32) {
    self.control = control
    self.doorbell = doorbell
  }
}

extension Confinement {
  /// After this the process opens, receives and makes no descriptor any more, no thread and no process: it can allocate
  /// memory, and talk over what it has. Once everything is mapped, before the author's code runs.
  /// - Throws: the step that the kernel refused. The process should then exit.
  public static func close(_ stage: ConfinedStage) throws(ConfinementError) {
    linux_use_one_heap()
    linux_grow_heap_in_place()
    try limitResources()
    let count = UInt64(linux_descriptor_count())
    try check("descriptor limit", linux_limit(Int32(LINUX_RLIMIT_NOFILE), count))
    try SystemCallFilter.initialisation(stage).load()
  }

  /// After this it maps nothing either, and its heap grows by 32 MiB at most. Before the first packet.
  /// - Throws: the step that the kernel refused. The process should then exit.
  public static func closeLoop(_ stage: ConfinedStage) throws(ConfinementError) {
    try limitMemory(roomToGrow: 32 << 20)
    try SystemCallFilter.loop(stage).load()
  }
}

/// The system calls of a stage: fewer than a driver host's. No device, no mapping, and nothing that makes or takes a
/// descriptor.
extension SystemCallFilter {
  static func loop(_ stage: ConfinedStage) -> SystemCallFilter {
    let rules =
      [
        // The host's doorbells; last words to the standard error; the end of what the process had.
        "write", "writev", "close",
        // Sleeping and time.
        "poll", "ppoll", "clock_gettime", "sched_yield", "restart_syscall",
      ].map { Rule($0) }
      + [
        // The supervisor, who hands nothing over: a descriptor that came would be beyond the limit.
        Rule("sendmsg", .argument(0, is: stage.control)),
        Rule("recvmsg", .argument(0, is: stage.control)),
        Rule("sendto", .argument(0, is: stage.control), toNoAddress),
        Rule("recvfrom", .argument(0, is: stage.doorbell)),
      ] + anyProcess
    return SystemCallFilter(rules: rules)
  }

  /// To no address: over what is connected.
  private static let toNoAddress = Condition(argument: 4, mask: .max, value: 0)

  /// What the stage's own beginning needs besides: memory. And the filter of the loop, and the last limit.
  static func initialisation(_ stage: ConfinedStage) -> SystemCallFilter {
    SystemCallFilter(
      rules: loop(stage).rules + heap + [
        Rule("mprotect", .argument(2, within: PROT_READ | PROT_WRITE)),
        Rule("seccomp"), Rule("prctl", .argument(0, is: PR_SET_NO_NEW_PRIVS)),
        Rule("prctl", .argument(0, is: PR_SET_SECCOMP)),
        Rule("prlimit64", .argument(0, is: 0)), Rule("getrlimit"), Rule("setrlimit"),
      ])
  }
}
