// A refused system call says its name before the process ends.
#pragma once
#include "syscalls.h"

/// From now on a system call that a filter refuses with SIGSYS is told to `socket`, as one message, if that takes it at once;
/// then the process ends with SIGSYS. The message is a text: "violation arch=A number=N arguments=X,Y,Z", all hexadecimal,
/// with the AUDIT_ARCH value of linux/audit.h. Returns 0 or -errno.
int linux_report_violations(int socket);
