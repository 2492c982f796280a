// Starting a process in namespaces of its own. Swift may not call fork or clone; between clone and exec
// only async-signal-safe calls are made.
#pragma once
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#define LINUX_CLONE_NEWNS 0x00020000UL
#define LINUX_CLONE_NEWCGROUP 0x02000000UL
#define LINUX_CLONE_NEWUTS 0x04000000UL
#define LINUX_CLONE_NEWIPC 0x08000000UL
#define LINUX_CLONE_NEWUSER 0x10000000UL
#define LINUX_CLONE_NEWPID 0x20000000UL
#define LINUX_CLONE_NEWNET 0x40000000UL
#include "syscalls.h"
#include <signal.h>
#include <linux/sched.h>

/// Starts the program behind the descriptor `executable` (O_PATH suffices, so nobody needs to reach its path) with
/// `arguments` and `environment` (NULL-terminated) in the namespaces named by `namespaces` (CLONE_NEW*).
/// descriptors[i] becomes descriptor i there (-1: the number stays closed); every other descriptor is closed. The
/// child dies with its parent. Unless `gate` is -1 it first writes one byte there, from when on its parent may write its uid
/// and gid maps, and reads one, for when that is done. In a new user namespace it becomes uid and gid 0 of that, without
/// further groups where the kernel lets it.
/// Returns the process id and its pidfd in `*pidfd`, or -errno.
LINUX_CALL int linux_spawn(int executable, char *_Nullable const *_Nonnull arguments, char *_Nullable const *_Nonnull environment, const int *_Nonnull descriptors, int count, unsigned long namespaces, int gate, int *_Nonnull pidfd) {
  if (count < 0 || count > 128) return -EINVAL;
  struct clone_args a = {.flags = namespaces | CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)pidfd, .exit_signal = SIGCHLD};
  long pid = syscall(SYS_clone3, &a, sizeof a);
  if (pid != 0) return linux_result(pid);
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (gate >= 0) {
    char byte = 1;
    // The files of /proc that hold the maps are the user's own only of a process that may be looked into.
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    if (write(gate, &byte, 1) != 1 || read(gate, &byte, 1) != 1) _exit(125);
  }
  if (namespaces & LINUX_CLONE_NEWUSER) {
    if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM) _exit(124);
    // The C library's functions would signal other threads, which do not exist here.
    if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0) _exit(124);
  }
  // A Ctrl-C at the terminal is for the parent, which ends its children in order.
  setpgid(0, 0);
  // After the change of user, which would clear it.
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  // Moved out of the way first, so that no target number is overwritten before it was copied.
  int moved[128];
  int program = fcntl(executable, F_DUPFD_CLOEXEC, 256);
  if (program < 0) _exit(126);
  for (int i = 0; i < count; i++) moved[i] = descriptors[i] < 0 ? -1 : fcntl(descriptors[i], F_DUPFD_CLOEXEC, 256);
  for (int i = 0; i < count; i++) {
    if (moved[i] < 0) { if (descriptors[i] >= 0) _exit(126); close(i); continue; }
    if (dup2(moved[i], i) < 0) _exit(126);
  }
  for (int i = 0; i < count; i++) if (moved[i] >= 0) close(moved[i]);
  if (program > count) syscall(SYS_close_range, count, program - 1, 0);
  syscall(SYS_close_range, program + 1, ~0U, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  syscall(SYS_execveat, program, "", arguments, environment, AT_EMPTY_PATH);
  _exit(127);
}
