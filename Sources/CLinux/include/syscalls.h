// System calls and constants that Swift cannot name: variadic functions, macros with casts, GNU extensions.
// Each function returns what the call returns, or -errno.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define LINUX_CALL static inline
#define LINUX_O_PATH 010000000
#define LINUX_MFD_CLOEXEC 0x0001U
#define LINUX_MFD_ALLOW_SEALING 0x0002U
#define LINUX_MFD_HUGETLB 0x0004U
#define LINUX_MFD_HUGE_2MB (21U << 26)
#define LINUX_MFD_HUGE_1GB (30U << 26)
#define LINUX_MAP_FIXED_NOREPLACE 0x100000
#define LINUX_AT_EMPTY_PATH 0x1000
#define LINUX_F_ADD_SEALS 1033
#define LINUX_F_GET_SEALS 1034
#define LINUX_F_SEAL_SEAL 0x0001
#define LINUX_F_SEAL_SHRINK 0x0002
#define LINUX_F_SEAL_GROW 0x0004
#define LINUX_F_SEAL_WRITE 0x0008

LINUX_CALL int linux_result(long r) { return r < 0 ? -errno : (int)r; }

/// memfd_create(2); the descriptor is close-on-exec when flags say so.
LINUX_CALL int linux_memfd_create(const char *_Nonnull name, unsigned flags) { return linux_result(syscall(SYS_memfd_create, name, flags)); }
/// fcntl(2) with an integer argument.
LINUX_CALL int linux_fcntl(int fd, int command, long argument) { return linux_result(fcntl(fd, command, argument)); }
/// ioctl(2) with a pointer argument.
LINUX_CALL int linux_ioctl(int fd, unsigned long request, void *_Nullable argument) { return linux_result(ioctl(fd, request, argument)); }
/// ioctl(2) with an integer argument.
LINUX_CALL int linux_ioctl_value(int fd, unsigned long request, unsigned long argument) { return linux_result(ioctl(fd, request, argument)); }
LINUX_CALL int linux_pivot_root(const char *_Nonnull new_root, const char *_Nonnull old_root) { return linux_result(syscall(SYS_pivot_root, new_root, old_root)); }
LINUX_CALL int linux_close_range(unsigned first, unsigned last) { return linux_result(syscall(SYS_close_range, first, last, 0)); }
LINUX_CALL int linux_pidfd_open(pid_t pid) { return linux_result(syscall(SYS_pidfd_open, pid, 0)); }
LINUX_CALL int linux_pidfd_send_signal(int pidfd, int signal) { return linux_result(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0)); }
/// pipe2(2), close-on-exec.
LINUX_CALL int linux_pipe(int *_Nonnull ends) { return linux_result(syscall(SYS_pipe2, ends, O_CLOEXEC)); }
/// sched_setaffinity(2) of the calling thread, by a mask of cores.
LINUX_CALL int linux_set_affinity(const void *_Nonnull mask, size_t bytes) { return linux_result(syscall(SYS_sched_setaffinity, 0, bytes, mask)); }
LINUX_CALL int linux_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) { return linux_result(prctl(option, a, b, c, d)); }
/// sched_setaffinity(2): the calling thread runs on this core only.
LINUX_CALL int linux_run_on_core(int core) {
  unsigned long mask[64] = {0};
  if (core < 0 || core >= (int)(8 * sizeof mask)) return -EINVAL;
  mask[core / (8 * (int)sizeof *mask)] |= 1UL << core % (8 * (int)sizeof *mask);
  return linux_result(syscall(SYS_sched_setaffinity, 0, sizeof mask, mask));
}
/// sched_getaffinity(2): whether the thread may run on a core; -errno where there is no such thread.
LINUX_CALL int linux_may_run_on_core(pid_t thread, int core) {
  unsigned long mask[64] = {0};
  if (core < 0 || core >= (int)(8 * sizeof mask)) return 0;
  int r = linux_result(syscall(SYS_sched_getaffinity, thread, sizeof mask, mask));
  return r < 0 ? r : (int)(mask[core / (8 * (int)sizeof *mask)] >> core % (8 * (int)sizeof *mask) & 1);
}
/// prlimit(2): lets another process have so many descriptors, as far as its hard limit goes (RLIMIT_NOFILE is 7 in
/// asm-generic/resource.h).
LINUX_CALL int linux_limit_descriptors(int process, uint64_t count) {
  uint64_t limit[2];
  if (syscall(SYS_prlimit64, process, 7, NULL, limit) < 0) return -errno;
  limit[0] = count < limit[1] ? count : limit[1];
  return linux_result(syscall(SYS_prlimit64, process, 7, limit, NULL));
}
/// fallocate(2): frees the pages of a range; the file keeps its size, and reads as zeros there.
LINUX_CALL int linux_punch_hole(int fd, off_t offset, off_t length) { return linux_result(syscall(SYS_fallocate, fd, 3 /* KEEP_SIZE, PUNCH_HOLE */, offset, length)); }
/// fallocate(2): makes the pages of a range.
LINUX_CALL int linux_allocate(int fd, off_t offset, off_t length) { return linux_result(syscall(SYS_fallocate, fd, 0, offset, length)); }
/// fstat(2) by its own system call: the C library's goes by way of one that takes paths.
LINUX_CALL int linux_fstat(int fd, struct stat *_Nonnull status) { return linux_result(syscall(SYS_fstat, fd, status)); }
/// mmap(2) of a whole shared mapping; MAP_FAILED becomes NULL and errno stays set.
LINUX_CALL void *_Nullable linux_mmap(void *_Nullable hint, size_t length, int protection, int flags, int fd, off_t offset) {
  void *p = mmap(hint, length, protection, flags, fd, offset);
  return p == MAP_FAILED ? NULL : p;
}

/// sendmsg(2) of one buffer with descriptors (SCM_RIGHTS), MSG_NOSIGNAL; count at most 16.
LINUX_CALL long linux_send_descriptors(int socket, const void *_Nullable bytes, size_t length, const int *_Nullable descriptors, int count, int flags) {
  struct iovec v = {.iov_base = (void *)bytes, .iov_len = length};
  char control[CMSG_SPACE(64 * sizeof(int))];
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
  if (count < 0 || count > 64) return -EINVAL;
  if (count > 0) {
    memset(control, 0, sizeof control);
    m.msg_control = control;
    m.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(c), descriptors, (size_t)count * sizeof(int));
  }
  long r = sendmsg(socket, &m, flags | MSG_NOSIGNAL);
  return r < 0 ? -errno : r;
}

/// recvmsg(2) of one buffer with descriptors, close-on-exec. Descriptors beyond `capacity` are closed,
/// and `*_count` says how many came in all (more than `capacity` means that some were refused). One that this process had no
/// number left for is counted too, behind those that came: nobody may take its message for one that had none.
LINUX_CALL long linux_receive_descriptors(int socket, void *_Nonnull bytes, size_t length, int *_Nullable descriptors, int capacity, int *_Nonnull count, int flags) {
  struct iovec v = {.iov_base = bytes, .iov_len = length};
  char control[CMSG_SPACE(253 * sizeof(int))];
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  *count = 0;
  long r = recvmsg(socket, &m, flags | MSG_CMSG_CLOEXEC);
  if (r < 0) return -errno;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (int i = 0; i < n; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + (size_t)i * sizeof(int), sizeof fd);
      if (*count < capacity) descriptors[*count] = fd; else close(fd);
      (*count)++;
    }
  }
  if (m.msg_flags & MSG_CTRUNC) {
    if (*count < capacity) descriptors[*count] = -1;
    (*count)++;
  }
  return r;
}

/// Fills a sockaddr_un; returns its length or -ENAMETOOLONG.
LINUX_CALL int linux_unix_address(struct sockaddr_un *_Nonnull address, const char *_Nonnull path) {
  size_t n = strlen(path);
  if (n == 0 || n >= sizeof address->sun_path) return -ENAMETOOLONG;
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path, path, n + 1);
  return (int)(offsetof(struct sockaddr_un, sun_path) + n + 1);
}
LINUX_CALL int linux_bind_unix(int socket, const char *_Nonnull path) {
  struct sockaddr_un a; int n = linux_unix_address(&a, path);
  return n < 0 ? n : linux_result(bind(socket, (struct sockaddr *)&a, (socklen_t)n));
}
LINUX_CALL int linux_connect_unix(int socket, const char *_Nonnull path) {
  struct sockaddr_un a; int n = linux_unix_address(&a, path);
  return n < 0 ? n : linux_result(connect(socket, (struct sockaddr *)&a, (socklen_t)n));
}

/// A listening UNIX stream socket without a path (the kernel chooses an abstract name), and a client connected to it:
/// nothing is left in any file system. Both are close-on-exec. Returns 0 or -errno.
LINUX_CALL int linux_connected_listener(int *_Nonnull listener, int *_Nonnull client) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  socklen_t n = sizeof(sa_family_t);
  *listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  *client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (*listener >= 0 && *client >= 0 && bind(*listener, (struct sockaddr *)&a, n) == 0 && listen(*listener, 1) == 0) {
    n = sizeof a;
    if (getsockname(*listener, (struct sockaddr *)&a, &n) == 0 && connect(*client, (struct sockaddr *)&a, n) == 0) return 0;
  }
  int error = errno;
  if (*listener >= 0) close(*listener);
  if (*client >= 0) close(*client);
  return -error;
}

// The address of a socket, as the kernel says it. Returns its length, or -errno.
LINUX_CALL int linux_socket_address(int s, void *_Nonnull address, size_t capacity) {
  socklen_t n = (socklen_t)capacity;
  return getsockname(s, (struct sockaddr *)address, &n) == 0 ? (int)n : -errno;
}

// Connects to such an address. Returns 0, or -errno.
LINUX_CALL int linux_connect_address(int s, const void *_Nonnull address, size_t length) {
  return connect(s, (const struct sockaddr *)address, (socklen_t)length) == 0 ? 0 : -errno;
}
