// Whether the running kernel has a system call, asked without any effect.
#pragma once
#include "syscalls.h"
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

/// The version of Landlock's interface, or -errno: ENOSYS where it was not built, EOPNOTSUPP where it is off.
LINUX_CALL int linux_landlock_version(void) { return linux_result(syscall(SYS_landlock_create_ruleset, NULL, 0, 1)); }

/// A structure of no bytes is refused with EINVAL by a kernel that has the call.
LINUX_CALL int linux_has_clone3(void) { return syscall(SYS_clone3, NULL, 0) < 0 && errno == EINVAL; }
