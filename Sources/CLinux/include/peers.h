// Who is at the other end of a UNIX socket, and random bytes.
#pragma once
#include "syscalls.h"
#include <stdint.h>
#include <sys/random.h>
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/// SO_PEERCRED: the process that connected, as the kernel knows it. Returns 0 or -errno.
LINUX_CALL int linux_peer(int socket, pid_t *_Nonnull pid, uid_t *_Nonnull uid) {
  struct { pid_t pid; uid_t uid; gid_t gid; } peer = {0};
  socklen_t n = sizeof peer;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0) return -errno;
  *pid = peer.pid;
  *uid = peer.uid;
  return 0;
}

/// A descriptor of the process that connected, which becomes readable when it ends: SO_PEERPIDFD (Linux 6.5), or by its
/// number where the kernel has not that. -errno where there is no such process any more.
LINUX_CALL int linux_peer_process(int socket, pid_t pid) {
  int fd = -1;
  socklen_t n = sizeof fd;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &n) == 0) return fd;
  if (errno != ENOPROTOOPT) return -errno;
  return linux_result(syscall(SYS_pidfd_open, pid, 0));
}
