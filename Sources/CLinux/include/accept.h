// accept4(2), which is a GNU extension.
#pragma once
#include "syscalls.h"

/// Accepts a connection; the descriptor is close-on-exec and does not block. Returns it or -errno.
LINUX_CALL int linux_accept(int listening) { return linux_result(syscall(SYS_accept4, listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)); }
