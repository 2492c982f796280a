// Which process speaks over a UNIX socket, message by message, and the seals and copies that memory handles need.
#pragma once
#include "peers.h"
#include <sys/statfs.h>

#define LINUX_F_SEAL_FUTURE_WRITE 0x0010
#define LINUX_F_DUPFD_CLOEXEC 1030
#ifndef SCM_CREDENTIALS
#define SCM_CREDENTIALS 2
#endif

/// SO_PASSCRED: each message received from now on says which process sent it.
LINUX_CALL int linux_pass_credentials(int socket) {
  int on = 1;
  return linux_result(setsockopt(socket, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
}

/// Whether a descriptor is in pidfs (Linux 6.9), where no two processes ever have the same inode.
LINUX_CALL int linux_is_pidfs(int fd) {
  struct statfs s;
  return fstatfs(fd, &s) == 0 && s.f_type == 0x50494446;
}

/// recvmsg(2) of one message with its sender's process (0 where the kernel did not say) and descriptors, close-on-exec;
/// what is beyond `capacity` is closed, and `*_count` says how many came. A message that was cut gives -EMSGSIZE.
LINUX_CALL long linux_receive_identified(int socket, void *_Nonnull bytes, size_t length, int *_Nonnull descriptors, int capacity, int *_Nonnull count, int32_t *_Nonnull sender) {
  struct iovec v = {.iov_base = bytes, .iov_len = length};
  struct { int32_t pid; uint32_t uid, gid; } c;
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(253 * sizeof(int)) + CMSG_SPACE(sizeof c)];
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  *count = 0;
  *sender = 0;
  long r = recvmsg(socket, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (r < 0) return -errno;
  for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
    if (h->cmsg_level != SOL_SOCKET) continue;
    if (h->cmsg_type == SCM_CREDENTIALS) {
      memcpy(&c, CMSG_DATA(h), sizeof c);
      *sender = c.pid;
    }
    if (h->cmsg_type != SCM_RIGHTS) continue;
    int n = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (int i = 0; i < n; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(h) + (size_t)i * sizeof(int), sizeof fd);
      if (*count < capacity) descriptors[*count] = fd; else close(fd);
      (*count)++;
    }
  }
  return m.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? -EMSGSIZE : r;
}

/// Copies into memory of this process whose pages may be missing: -EFAULT instead of a signal.
LINUX_CALL long linux_copy_checked(void *_Nonnull to, const void *_Nonnull from, size_t length) {
  struct iovec here = {.iov_base = (void *)from, .iov_len = length}, there = {.iov_base = to, .iov_len = length};
  long r = syscall(SYS_process_vm_writev, getpid(), &here, 1, &there, 1, 0);
  return r < 0 ? -errno : r;
}

/// mmap(2) over what is mapped at `address`, in one step. Returns 0 or -errno.
LINUX_CALL int linux_replace_mapping(void *_Nonnull address, size_t length, int protection, int fd) {
  return mmap(address, length, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ? -errno : 0;
}
