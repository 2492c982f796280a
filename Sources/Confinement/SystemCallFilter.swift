import CLinux
import CSeccomp
import Glibc

/// An allow list of system calls, assembled and loaded by libseccomp. Whatever is not listed kills the process.
public struct SystemCallFilter: Sendable {
  /// A call, and what must hold of its arguments.
  struct Rule: Sendable {
    var call: String
    var conditions: [Condition] = []
  }

  /// `argument & mask == value`.
  struct Condition: Sendable {
    var argument: UInt32
    var mask: UInt64
    var value: UInt64
  }

  var rules: [Rule]

  /// What the loop of a driver host needs, with the reason for each group.
  public static let driverHost = SystemCallFilter(
    rules: [
      // The device: registers and messages by descriptor, never by path.
      "read", "write", "pread64", "pwrite64", "readv", "writev", "sendmsg", "recvmsg", "sendto",
      "recvfrom", "close",
      // Sleeping and time.
      "poll", "ppoll", "epoll_wait", "epoll_pwait", "clock_gettime", "clock_nanosleep", "nanosleep",
      "sched_yield",
      // The Swift runtime and the C library.
      "futex", "madvise", "munmap", "brk", "rt_sigreturn", "rt_sigprocmask", "rt_sigaction",
      "sigaltstack", "getrandom", "getpid", "gettid", "tgkill", "restart_syscall", "exit",
      "exit_group",
    ].map { Rule(call: $0) }
      // Memory may be mapped, but never so that it can be executed.
      + ["mmap", "mprotect"].map {
        Rule(call: $0, conditions: [Condition(argument: 2, mask: UInt64(PROT_EXEC), value: 0)])
      }
      // VFIO's device requests are _IO(';', 100 + 7 ... 100 + 11); nothing else by ioctl.
      + (0x3b6b...0x3b6f).map {
        Rule(
          call: "ioctl",
          conditions: [Condition(argument: 1, mask: 0xffff_ffff, value: UInt64($0))])
      }
      // Descriptor flags may be read and set; no locks, owners or signals.
      + [F_GETFL, F_SETFL, F_GETFD, F_SETFD].map {
        Rule(
          call: "fcntl",
          conditions: [Condition(argument: 1, mask: 0xffff_ffff, value: UInt64($0))])
      })

  /// The same for a host that instances come to and leave: it looks at memory that it is handed and maps it.
  public static let sharedDriverHost = SystemCallFilter(
    rules: driverHost.rules
      // Instances' doorbells come and go.
      + [
        Rule(call: "epoll_ctl"),
        // The size of a descriptor's memory: either call, as the C library has it, and none by path.
        Rule(call: "fstat"),
        Rule(
          call: "newfstatat",
          conditions: [
            Condition(
              argument: 3, mask: UInt64(LINUX_AT_EMPTY_PATH), value: UInt64(LINUX_AT_EMPTY_PATH))
          ]),
      ]
      // Whether its owner can shrink it; and a descriptor of one's own of it.
      + [LINUX_F_GET_SEALS, F_DUPFD_CLOEXEC].map {
        Rule(
          call: "fcntl",
          conditions: [Condition(argument: 1, mask: 0xffff_ffff, value: UInt64($0))])
      })

  /// Loads the filter into all threads of this process, for good.
  public func load() throws(ConfinementError) {
    // SCMP_ACT_KILL_PROCESS and SCMP_ACT_ALLOW are macros with casts.
    let kill: UInt32 = 0x8000_0000
    let allow: UInt32 = 0x7fff_0000
    guard let context = seccomp_init(kill) else {
      throw ConfinementError(step: "system call filter", errno: ENOMEM)
    }
    defer { seccomp_release(context) }
    for rule in rules {
      let number = seccomp_syscall_resolve_name(rule.call)
      // A call that this architecture does not have needs no rule.
      if number < 0 { continue }
      let comparisons = rule.conditions.map {
        scmp_arg_cmp(
          arg: $0.argument, op: SCMP_CMP_MASKED_EQ, datum_a: $0.mask, datum_b: $0.value)
      }
      let result = seccomp_rule_add_array(
        context, allow, number, UInt32(comparisons.count), comparisons)
      if result < 0 { throw ConfinementError(step: "system call \(rule.call)", errno: -result) }
    }
    var result = seccomp_attr_set(context, SCMP_FLTATR_CTL_TSYNC, 1)
    if result < 0 { throw ConfinementError(step: "system call filter", errno: -result) }
    result = seccomp_load(context)
    if result < 0 { throw ConfinementError(step: "system call filter", errno: -result) }
  }
}
