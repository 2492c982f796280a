import CLinux
import Glibc

/// The system calls of a driver host, with the reason for each group. None takes a path, makes a socket, a process, a thread
/// or memory that can be executed.
extension SystemCallFilter {
  /// What the loop needs.
  static func loop(_ host: ConfinedHost) -> SystemCallFilter {
    var rules = anyLoop + device(host)
    // By those who have the sockets: nothing is sent over what an instance or a device has handed over.
    let sockets: [Int32] = [host.control, host.device]
    for call in ["sendmsg", "recvmsg"] {
      rules +=
        host.access == .replacedSocket
        ? [Rule(call)] : sockets.map { Rule(call, .argument(0, is: $0)) }
    }
    // Doorbells of instances, and the last word; to no address.
    let toNoAddress = Condition(argument: 4, mask: .max, value: 0)
    rules +=
      host.isShared
      ? [Rule("sendto", toNoAddress)]
      : [host.control, host.instanceDoorbell].map {
        Rule("sendto", .argument(0, is: $0), toNoAddress)
      }
    return SystemCallFilter(rules: rules + (host.isShared ? manyInstances : heap))
  }

  /// What a driver needs besides, to set up its device.
  static func initialisation(_ host: ConfinedHost) -> SystemCallFilter {
    var rules = loop(host).rules
    rules += [
      // Registers that can be mapped, from the device or from what its server hands over.
      Rule(
        "mmap", .argument(2, within: PROT_READ | PROT_WRITE),
        .argument(3, within: MAP_SHARED | Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS))),
      Rule("mprotect", .argument(2, within: PROT_READ | PROT_WRITE)),
      Rule("fstat"), Rule("fcntl", .argument(1, is: LINUX_F_GET_SEALS)),
      Rule("fcntl", .argument(1, is: F_GETFD)),
      Rule("eventfd2"),
      // The filter of the loop, and the last limits.
      Rule("seccomp"), Rule("prctl", .argument(0, is: PR_SET_NO_NEW_PRIVS)),
      Rule("prctl", .argument(0, is: PR_SET_SECCOMP)),
      // One that stood by has another name from now on.
      Rule("prctl", .argument(0, is: PR_SET_NAME)),
      Rule("prlimit64", .argument(0, is: 0)), Rule("getrlimit"), Rule("setrlimit"),
    ]
    return SystemCallFilter(rules: rules)
  }

  private static let anyLoop: [Rule] =
    [
      // Doorbells and interrupts; a run's trace; last words to the standard error.
      "read", "write", "writev", "close",
      // Sleeping and time.
      "poll", "ppoll", "epoll_wait", "epoll_pwait", "clock_gettime", "clock_nanosleep", "nanosleep",
      "sched_yield", "restart_syscall",
    ].map { Rule($0) } + anyProcess

  /// What the C library and Swift need, whatever the process does.
  static let anyProcess: [Rule] =
    [
      // The heap and random numbers; the end of threads and process.
      "brk", "munmap", "getrandom", "getpid", "gettid", "rt_sigreturn", "rt_sigprocmask", "exit",
      "exit_group",
    ].map { Rule($0) }
    // The C library's semaphores and joins wait and wake (FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAIT_BITSET), Swift's Mutex has the
    // kernel know who holds it (FUTEX_LOCK_PI, FUTEX_UNLOCK_PI, FUTEX_TRYLOCK_PI). Nothing moves from one word to another.
    + [0, 1, 9, 6, 7, 8].map {
      // FUTEX_PRIVATE_FLAG (128) and FUTEX_CLOCK_REALTIME (256) may be there.
      Rule(
        "futex",
        Condition(argument: 1, mask: 0xffff_ffff & ~(128 | 256), value: $0))
    }
    + [
      // Pages of ended threads and of what has been freed.
      Rule("madvise", .argument(2, is: MADV_DONTNEED)),
      // abort(3).
      Rule("tgkill", .argument(2, is: SIGABRT)),
      Rule("rt_sigaction", .argument(0, is: SIGABRT)),
      // A bus error that is nobody's fault but ours ends the process as it would have.
      Rule("rt_sigaction", .argument(0, is: SIGBUS)),
    ]

  /// Requests to VFIO's device, and registers that are not mapped; nothing where the device is behind a socket.
  private static func device(_ host: ConfinedHost) -> [Rule] {
    guard host.access == .kernelVFIO else { return [] }
    // VFIO_DEVICE_GET_INFO to VFIO_DEVICE_RESET are _IO(';', 100 + 7 ... 100 + 11).
    return (0x3b6b...0x3b6f).map {
      Rule("ioctl", .argument(0, is: host.device), .argument(1, is: $0))
    }
      + ["pread64", "pwrite64"].map { Rule($0, .argument(0, is: host.device)) }
  }

  /// More memory for the heap.
  static let heap = [
    Rule(
      "mmap", .argument(2, within: PROT_READ | PROT_WRITE),
      .argument(3, is: Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS)))
  ]

  /// Memory that the host is handed is looked at and mapped, doorbells come and go.
  private static let manyInstances = [
    Rule(
      "mmap", .argument(2, within: PROT_READ | PROT_WRITE),
      .argument(
        3,
        within: MAP_SHARED | Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS) | Int32(MAP_FIXED)
          | Int32(MAP_POPULATE) | Int32(MAP_NORESERVE))),
    Rule("epoll_ctl"), Rule("fstat"),
    // Whether its owner can shrink it; and a descriptor of one's own of it.
    Rule("fcntl", .argument(1, is: LINUX_F_GET_SEALS)),
    Rule("fcntl", .argument(1, is: F_DUPFD_CLOEXEC)),
  ]
}
