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

/// As many descriptors as the system allows this process, not the few that old programs can count.
LINUX_CALL int linux_allow_all_descriptors(void) {
  struct rlimit r;
  if (getrlimit(RLIMIT_NOFILE, &r) < 0) return -errno;
  r.rlim_cur = r.rlim_max;
  return linux_result(setrlimit(RLIMIT_NOFILE, &r));
}

enum { LINUX_RLIMIT_FSIZE = 1, LINUX_RLIMIT_CORE = 4, LINUX_RLIMIT_NPROC = 6 };
LINUX_CALL int linux_limit(int resource, uint64_t value) {
  struct rlimit r = {.rlim_cur = value, .rlim_max = value};
  return linux_result(setrlimit((__rlimit_resource_t)resource, &r));
}

/// mallopt(3): threads that are made from now on allocate from the first one's heap.
LINUX_CALL void linux_use_one_heap(void) { mallopt(M_ARENA_MAX, 1); }
