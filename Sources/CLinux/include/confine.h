// What a process needs to give up its rights: mounts, capabilities, limits.
#pragma once
#include "syscalls.h"
#include <linux/capability.h>
#include <linux/securebits.h>
#include <malloc.h>
#include <sys/mount.h>
#include <sys/resource.h>

/// Replaces the root by an empty, read-only file system; the old one is unmounted. Needs a mount namespace of its
/// own. Returns 0 or -errno.
LINUX_CALL int linux_empty_root(void) {
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return -errno;
  if (mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,nr_inodes=2,mode=555") < 0) return -errno;
  if (chdir("/tmp") < 0) return -errno;
  int r = linux_pivot_root(".", ".");
  if (r < 0) return r;
  if (umount2(".", MNT_DETACH) < 0) return -errno;
  if (chdir("/") < 0) return -errno;
  if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) return -errno;
  return 0;
}

/// Empties every capability set for good, bounding and ambient included, and forbids new privileges.
LINUX_CALL int linux_drop_capabilities(void) {
  for (int c = 0; c < 64; c++) if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EINVAL) return -errno;
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) return -errno;
  if (prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED, 0, 0, 0) < 0) return -errno;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2] = {{0}, {0}};
  if (syscall(SYS_capset, &header, none) < 0) return -errno;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
  return 0;
}

/// Keeps of the calling thread's capabilities no more than the bits of `kept`, for good, and forbids new privileges; a process
/// without the right to do so has none to lose. Returns 0 or -errno.
LINUX_CALL int linux_keep_capabilities(uint64_t kept) {
  for (int c = 0; c < 64; c++) {
    if (kept >> c & 1 || c == CAP_SETPCAP) continue;
    if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EINVAL && errno != EPERM) return -errno;
  }
  if (!(kept >> CAP_SETPCAP & 1) && prctl(PR_CAPBSET_DROP, CAP_SETPCAP, 0, 0, 0) < 0 && errno != EPERM) return -errno;
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) return -errno;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct sets[2];
  if (syscall(SYS_capget, &header, sets) < 0) return -errno;
  for (int i = 0; i < 2; i++) {
    uint32_t bits = (uint32_t)(kept >> 32 * i);
    sets[i].effective &= bits;
    sets[i].permitted &= bits;
    sets[i].inheritable = 0;
  }
  if (syscall(SYS_capset, &header, sets) < 0) return -errno;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
  return 0;
}

/// As many descriptors as the system allows this process, not the few that old programs can count.
LINUX_CALL int linux_allow_all_descriptors(void) {
  struct rlimit r;
  if (getrlimit(RLIMIT_NOFILE, &r) < 0) return -errno;
  r.rlim_cur = r.rlim_max;
  return linux_result(setrlimit(RLIMIT_NOFILE, &r));
}

// By number, as the kernel has them (asm-generic/resource.h): the C library's are an enumeration of its own.
enum {
  LINUX_RLIMIT_FSIZE = 1, LINUX_RLIMIT_CORE = 4, LINUX_RLIMIT_NPROC = 6, LINUX_RLIMIT_NOFILE = 7, LINUX_RLIMIT_MEMLOCK = 8,
  LINUX_RLIMIT_AS = 9, LINUX_RLIMIT_LOCKS = 10, LINUX_RLIMIT_SIGPENDING = 11, LINUX_RLIMIT_MSGQUEUE = 12, LINUX_RLIMIT_NICE = 13,
  LINUX_RLIMIT_RTPRIO = 14,
};
LINUX_CALL int linux_limit(int resource, uint64_t value) {
  struct rlimit r = {.rlim_cur = value, .rlim_max = value};
  return linux_result(setrlimit((__rlimit_resource_t)resource, &r));
}

/// Bytes of addresses that are mapped, in whole pages, found by the limit at which one page more is refused, as there is no
/// /proc to read; 0 where that cannot be tried. Lowers RLIMIT_AS for a moment: no other thread may map meanwhile.
LINUX_CALL uint64_t linux_mapped_bytes(void) {
  struct rlimit before;
  if (getrlimit(RLIMIT_AS, &before) < 0) return 0;
  uint64_t refused = 0, granted = 1ULL << 47 >> 12;
  if (before.rlim_max != RLIM_INFINITY && before.rlim_max >> 12 < granted) granted = before.rlim_max >> 12;
  while (granted - refused > 1) {
    uint64_t middle = refused + (granted - refused) / 2;
    struct rlimit r = {.rlim_cur = middle << 12, .rlim_max = before.rlim_max};
    if (setrlimit(RLIMIT_AS, &r) < 0) return 0;
    void *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) { refused = middle; continue; }
    munmap(page, 4096);
    granted = middle;
  }
  return setrlimit(RLIMIT_AS, &before) < 0 ? 0 : refused << 12;
}

/// One more than the highest descriptor that is open.
LINUX_CALL int linux_descriptor_count(void) {
  int count = 0;
  for (int fd = 0; fd < 4096; fd++) if (fcntl(fd, F_GETFD) >= 0) count = fd + 1;
  return count;
}

/// Denies this thread, and those that it makes, everything that this version of Landlock knows: files by path (all rights),
/// TCP (version 4), requests to devices opened from now on (5), abstract sockets and signals to others (6). No rule allows
/// anything. Needs no_new_privs. Returns 0 or -errno.
LINUX_CALL int linux_landlock_deny_all(int version) {
  struct { uint64_t files, network, scoped; } handled = {.files = (1ULL << 13) - 1};
  if (version >= 2) handled.files |= 1ULL << 13;  // moving between folders
  if (version >= 3) handled.files |= 1ULL << 14;  // truncating
  if (version >= 5) handled.files |= 1ULL << 15;  // ioctl on devices
  size_t size = 8;
  if (version >= 4) { handled.network = 3; size = 16; }
  if (version >= 6) { handled.scoped = 3; size = 24; }
  long rules = syscall(444, &handled, size, 0);
  if (rules < 0) return -errno;
  int r = linux_result(syscall(446 /* landlock_restrict_self */, rules, 0));
  close((int)rules);
  return r;
}

/// mallopt(3): threads that are made from now on allocate from the first one's heap.
LINUX_CALL void linux_use_one_heap(void) { mallopt(M_ARENA_MAX, 1); }

/// mallopt(3): the heap grows by brk(2) alone, however much is asked for at once.
LINUX_CALL void linux_grow_heap_in_place(void) { mallopt(M_MMAP_MAX, 0); }
