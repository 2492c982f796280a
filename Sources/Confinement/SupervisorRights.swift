import CLinux
import Glibc

/// What a supervisor keeps of root's rights, and what neither it nor the programs that it starts can do any more.
public enum SupervisorRights {
  /// Gives up the rest, for good: while the process has one thread, before it reads anything that is not its user's.
  /// As an ordinary user it has no capability to lose.
  /// - Throws: the step that the kernel refused. The process should then exit.
  public static func keepWhatIsNeeded() throws(ConfinementError) {
    let bits = kept.reduce(UInt64(0)) { $0 | 1 << UInt64($1) }
    try Confinement.check("capabilities of the supervisor", linux_keep_capabilities(bits))
    try Confinement.check("not dumpable", linux_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    try refusedCalls.load()
  }

  static let kept = [
    // Network namespaces for emulated wires, entered by nsenter(1); a TAP interface and its addresses; ping(8), and a server
    // on port 80 behind the kernel's stack, for the checks.
    CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE,
    // Driver hosts and instances become nobody; they are ended.
    CAP_SETUID, CAP_SETGID, CAP_KILL,
    // Memory for the device: pinned pages, the kernel's word when it gets short, many descriptors.
    CAP_IPC_LOCK, CAP_SYS_RESOURCE,
    // Sockets in others' folders, with the owner that the policy names; a device that `martlet bind --user` gave away.
    CAP_DAC_OVERRIDE, CAP_CHOWN, CAP_FOWNER,
    // IOMMU faults stand in the kernel's log.
    CAP_SYSLOG,
  ]

  /// Refused with EPERM: no part of a run needs them, and each has been a way into the kernel or into other processes.
  static let refusedCalls = SystemCallFilter(
    rules: [
      // Other processes.
      "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
      // The kernel.
      "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter",
      "io_uring_register", "init_module", "finit_module", "delete_module", "kexec_load",
      "kexec_file_load", "iopl", "ioperm", "modify_ldt", "add_key", "request_key", "keyctl",
      "personality", "lookup_dcookie", "uselib", "ustat", "sysfs", "_sysctl", "vm86", "vm86old",
      // The machine.
      "reboot", "swapon", "swapoff", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex",
      "acct", "quotactl", "quotactl_fd", "nfsservctl", "sethostname", "setdomainname", "vhangup",
      // Files by number, and of everybody.
      "open_by_handle_at", "name_to_handle_at", "fanotify_init", "fanotify_mark",
    ].map { SystemCallFilter.Rule($0) }, others: .allow)
}
