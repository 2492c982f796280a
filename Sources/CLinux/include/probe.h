// Whether the running kernel has a system call, asked without any effect.
#pragma once
#include "processes.h"
#include <sys/wait.h>
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

/// The version of Landlock's interface, or -errno: ENOSYS where it was not built, EOPNOTSUPP where it is off.
LINUX_CALL int linux_landlock_version(void) { return linux_result(syscall(SYS_landlock_create_ruleset, NULL, 0, 1)); }

/// A structure of no bytes is refused with EINVAL by a kernel that has the call.
LINUX_CALL int linux_has_clone3(void) { return syscall(SYS_clone3, NULL, 0) < 0 && errno == EINVAL; }

/// Makes a user namespace in a process that ends at once. Returns 0 or -errno: EPERM where the system or a chroot
/// forbids it, ENOSPC where there are too many.
LINUX_CALL int linux_try_user_namespace(void) {
  struct clone_args a = {.flags = LINUX_CLONE_NEWUSER, .exit_signal = SIGCHLD};
  long pid = syscall(SYS_clone3, &a, sizeof a);
  if (pid < 0) return -errno;
  if (pid == 0) syscall(SYS_exit_group, 0);
  while (waitpid((pid_t)pid, NULL, 0) < 0 && errno == EINTR) {}
  return 0;
}
