#define _GNU_SOURCE
#include "attempts.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CONTROL = 3, DEVICE = 4, ARENA = 6 };
#define CALL(number, ...) result(syscall(number __VA_OPT__(, ) __VA_ARGS__))
static long result(long r) { return r < 0 ? -errno : r; }
static char page[4096] __attribute__((aligned(4096)));
static const char nowhere[] = "/nowhere/martlet";

/// Another process: none is there in a namespace where this one is the first.
static int other(void) { return getpid() == 1 ? 2 : getppid(); }

// MARK: Memory

static long mmap_exec(void) { return CALL(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static long mmap_exec_arena(void) { return CALL(SYS_mmap, NULL, 1 << 21, PROT_READ | PROT_EXEC, MAP_SHARED, ARENA, 0); }
static long mmap_arena(void) { return CALL(SYS_mmap, NULL, 1 << 21, PROT_READ, MAP_SHARED, ARENA, 0); }
static long mmap_grows_down(void) { return CALL(SYS_mmap, NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0); }
static long mmap_much(void) { return CALL(SYS_mmap, NULL, 2L << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static long brk_much(void) {
  long now = syscall(SYS_brk, 0);
  return syscall(SYS_brk, now + (1L << 30)) == now ? -ENOMEM : 0;
}
static long mprotect_exec(void) { return CALL(SYS_mprotect, page, sizeof page, PROT_READ | PROT_EXEC); }
static long mprotect_text(void) { return CALL(SYS_mprotect, (uintptr_t)&mprotect_text & ~4095UL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC); }
static long pkey_mprotect_exec(void) { return CALL(SYS_pkey_mprotect, page, sizeof page, PROT_READ | PROT_EXEC, -1); }
static long mremap_page(void) {
  void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? -errno : CALL(SYS_mremap, p, 4096, 8192, MREMAP_MAYMOVE, 0);
}
static long remap_file_pages_arena(void) { return CALL(SYS_remap_file_pages, page, 4096, 0, 0, 0); }
static long mlock_page(void) { return CALL(SYS_mlock, page, sizeof page); }
static long mlockall_all(void) { return CALL(SYS_mlockall, 1); }
static long madvise_fork(void) { return CALL(SYS_madvise, page, sizeof page, MADV_DONTFORK); }
static long memfd(void) { return CALL(SYS_memfd_create, "escape", 0); }
static long memfd_secret(void) { return CALL(447, 0); }
static long userfaultfd(void) { return CALL(SYS_userfaultfd, 0); }
static long shmget_exec(void) { return CALL(SYS_shmget, 0, 4096, 01700); }
static long process_vm_readv_other(void) { return CALL(SYS_process_vm_readv, other(), NULL, 0, NULL, 0, 0); }
static long process_vm_writev_other(void) { return CALL(SYS_process_vm_writev, other(), NULL, 0, NULL, 0, 0); }
static long process_madvise_none(void) { return CALL(440, -1, NULL, 0, 4, 0); }
static long mbind_page(void) { return CALL(SYS_mbind, page, sizeof page, 0, NULL, 0, 0); }
static long move_pages_self(void) { return CALL(SYS_move_pages, 0, 0, NULL, NULL, NULL, 0); }

// MARK: Files

static long openat_passwd(void) { return CALL(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY); }
static long openat_root(void) { return CALL(SYS_openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY); }
static long openat_proc(void) { return CALL(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY); }
static long openat_other_arena(void) { return CALL(SYS_openat, AT_FDCWD, "/proc/1/fd/6", O_RDWR); }
static long openat2_passwd(void) {
  struct { uint64_t flags, mode, resolve; } how = {O_RDONLY, 0, 0};
  return CALL(437, AT_FDCWD, "/etc/passwd", &how, sizeof how);
}
static long execve_true(void) {
  char *arguments[] = {"true", NULL};
  return CALL(SYS_execve, "/bin/true", arguments, NULL);
}
static long execveat_arena(void) {
  char *arguments[] = {"arena", NULL};
  return CALL(SYS_execveat, ARENA, "", arguments, NULL, 0x1000);
}
static long fstatat_root(void) {
  static char status[512];
  return CALL(SYS_newfstatat, AT_FDCWD, "/", status, 0);
}
static long readlinkat_self(void) { return CALL(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", page, sizeof page); }
static long unlinkat_nowhere(void) { return CALL(SYS_unlinkat, AT_FDCWD, nowhere, 0); }
static long mkdirat_nowhere(void) { return CALL(SYS_mkdirat, AT_FDCWD, nowhere, 0700); }
static long getdents_arena(void) { return CALL(SYS_getdents64, ARENA, page, sizeof page); }
static long name_to_handle(void) {
  struct { unsigned bytes; int type; char handle[128]; } h = {.bytes = 128};
  int mount;
  return CALL(SYS_name_to_handle_at, AT_FDCWD, "/", &h, &mount, 0);
}
static long open_by_handle(void) {
  struct { unsigned bytes; int type; char handle[8]; } h = {.bytes = 8};
  return CALL(SYS_open_by_handle_at, AT_FDCWD, &h, O_RDONLY);
}
static long mount_nowhere(void) { return CALL(SYS_mount, "none", nowhere, "tmpfs", 0, NULL); }
static long umount_nowhere(void) { return CALL(SYS_umount2, nowhere, 0); }
static long pivot_root_nowhere(void) { return CALL(SYS_pivot_root, nowhere, nowhere); }
static long chroot_root(void) { return CALL(SYS_chroot, "/"); }
static long chdir_root(void) { return CALL(SYS_chdir, "/"); }
static long fsopen_proc(void) { return CALL(430, "proc", 0); }
static long open_tree_root(void) { return CALL(428, AT_FDCWD, "/", 0); }
static long ftruncate_arena(void) { return CALL(SYS_ftruncate, ARENA, 0); }
static long fallocate_arena(void) { return CALL(SYS_fallocate, ARENA, 3, 0, 4096); }
static long inotify(void) { return CALL(SYS_inotify_init1, 0); }
static long fanotify(void) { return CALL(SYS_fanotify_init, 0, 0); }

// MARK: Network and descriptors

static long socket_of(int family, int type) { return CALL(SYS_socket, family, type, 0); }
static long socket_inet(void) { return socket_of(AF_INET, SOCK_STREAM); }
static long socket_unix(void) { return socket_of(AF_UNIX, SOCK_STREAM); }
static long socket_netlink(void) { return socket_of(AF_NETLINK, SOCK_RAW); }
static long socket_packet(void) { return socket_of(AF_PACKET, SOCK_RAW); }
static long socket_vsock(void) { return socket_of(AF_VSOCK, SOCK_STREAM); }
static long socketpair_unix(void) {
  int ends[2];
  return CALL(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, ends);
}
static long connect_control(void) {
  struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "\0martlet"};
  return CALL(SYS_connect, CONTROL, &a, 10);
}
static long bind_control(void) {
  struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "\0martlet"};
  return CALL(SYS_bind, CONTROL, &a, 10);
}
static long listen_control(void) { return CALL(SYS_listen, CONTROL, 1); }
static long accept_control(void) { return CALL(SYS_accept4, CONTROL, NULL, NULL, 0); }
static long setsockopt_control(void) { return CALL(SYS_setsockopt, CONTROL, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)); }
static long shutdown_control(void) { return CALL(SYS_shutdown, CONTROL, SHUT_RD); }
static long sendmsg_other(void) {
  struct msghdr m = {0};
  return CALL(SYS_sendmsg, 7, &m, MSG_DONTWAIT);
}
static long sendto_device(void) { return CALL(SYS_sendto, DEVICE, "x", 1, MSG_DONTWAIT, NULL, 0); }
static long dup_control(void) { return CALL(SYS_dup, CONTROL); }
static long fcntl_dup(void) { return CALL(SYS_fcntl, CONTROL, F_DUPFD, 0); }
static long fcntl_owner(void) { return CALL(SYS_fcntl, CONTROL, F_SETOWN, 1); }
static long fcntl_seals(void) { return CALL(SYS_fcntl, ARENA, 1033, 0x10); }
static long ioctl_tiocsti(void) { return CALL(SYS_ioctl, 2, 0x5412, "x"); }
static long ioctl_map_dma(void) {
  struct { uint32_t size, flags; uint64_t address, iova, bytes; } map = {sizeof map, 3, (uintptr_t)page, 0, 4096};
  return CALL(SYS_ioctl, DEVICE, 0x3b71, &map);
}
// VFIO_DEVICE_FEATURE, which the list of a host with a device of the kernel's does not have, and VFIO_DEVICE_GET_INFO on what
// is no device.
static long ioctl_vfio_feature(void) { return CALL(SYS_ioctl, DEVICE, 0x3b75, page); }
static long ioctl_vfio_other(void) { return CALL(SYS_ioctl, ARENA, 0x3b6b, page); }
static long pread_arena(void) { return CALL(SYS_pread64, ARENA, page, 1, 0); }
static long ioctl_fionread(void) { return CALL(SYS_ioctl, CONTROL, 0x541b, page); }
static long pipe_new(void) {
  int ends[2];
  return CALL(SYS_pipe2, ends, 0);
}
static long eventfd_new(void) { return CALL(SYS_eventfd2, 0, 0); }
static long epoll_new(void) { return CALL(SYS_epoll_create1, 0); }
static long timerfd_new(void) { return CALL(SYS_timerfd_create, CLOCK_MONOTONIC, 0); }
static long signalfd_new(void) { return CALL(SYS_signalfd4, -1, &(uint64_t){0}, 8, 0); }
static long splice_control(void) { return CALL(SYS_splice, CONTROL, NULL, ARENA, NULL, 1, 2); }
static long io_uring(void) {
  static char parameters[256];
  return CALL(425, 1, parameters);
}
static long pidfd_open_other(void) { return CALL(434, other(), 0); }
static long pidfd_getfd_any(void) { return CALL(438, CONTROL, CONTROL, 0); }
static long message_queue(void) { return CALL(SYS_mq_open, "martlet-escape", O_RDONLY, 0, NULL); }

// MARK: Processes

static void leave(long pid) { if (pid == 0) _exit(0); }
static long fork_child(void) {
  long pid = CALL(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  leave(pid);
  return pid;
}
static long clone_namespaces(void) {
  long pid = CALL(SYS_clone, CLONE_NEWUSER | CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0);
  leave(pid);
  return pid;
}
static long clone3_child(void) {
  struct { uint64_t flags, pidfd, child, parent, exit_signal, stack, size, tls; } a = {.exit_signal = SIGCHLD};
  long pid = CALL(435, &a, sizeof a);
  leave(pid);
  return pid;
}
static void *nothing(void *argument) { return argument; }
static long thread(void) {
  pthread_t t;
  return -pthread_create(&t, NULL, nothing, NULL);
}
static long unshare_net(void) { return CALL(SYS_unshare, CLONE_NEWNET); }
static long unshare_user(void) { return CALL(SYS_unshare, CLONE_NEWUSER); }
static long setns_control(void) { return CALL(SYS_setns, CONTROL, 0); }
static long ptrace_other(void) { return CALL(SYS_ptrace, 0x4206, other(), 0, 0); }
static long kcmp_other(void) { return CALL(SYS_kcmp, other(), other(), 0, 0, 0); }
static long kill_all(void) { return CALL(SYS_kill, -1, 0); }
static long kill_other(void) { return CALL(SYS_kill, other(), 0); }
static long tgkill_kill(void) { return CALL(SYS_tgkill, other(), other(), 0); }
// The filter lets abort(3) signal: it reaches nobody but the host itself.
static long tgkill_other(void) {
  int target = getpid() == 1 ? 2 : getpid();
  return CALL(SYS_tgkill, target, target, SIGABRT);
}
static long sigqueue_other(void) {
  siginfo_t info = {.si_code = SI_QUEUE};
  return CALL(SYS_rt_sigqueueinfo, other(), 0, &info);
}
static long pidfd_signal(void) { return CALL(424, CONTROL, 0, NULL, 0); }
static long setpgid_self(void) { return CALL(SYS_setpgid, 0, 0); }
static long setsid_self(void) { return CALL(SYS_setsid); }
static long set_affinity(void) { return CALL(SYS_sched_setaffinity, 0, 8, &(uint64_t){~0UL}); }
static long set_scheduler(void) { return CALL(SYS_sched_setscheduler, 0, SCHED_FIFO, &(int){1}); }
static long nice_up(void) { return CALL(SYS_setpriority, PRIO_PROCESS, 0, -5); }
static long futex_requeue_pi(void) {
  static int words[2];
  return CALL(SYS_futex, &words[0], 12, 1, 0, &words[1], 0);
}
static long futex_waitv(void) { return CALL(449, NULL, 0, 0, NULL, 0); }

// MARK: Rights

static long setuid_root(void) { return CALL(SYS_setuid, 0); }
static long setresuid_other(void) { return CALL(SYS_setresuid, -1, -1, -1); }
static long setgid_root(void) { return CALL(SYS_setgid, 0); }
static long setgroups_root(void) { return CALL(SYS_setgroups, 0, NULL); }
static long capset_all(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct all[2] = {{~0U, ~0U, ~0U}, {~0U, ~0U, ~0U}};
  return CALL(SYS_capset, &header, all);
}
static long prctl_dumpable(void) { return CALL(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0); }
static long prctl_bounding(void) { return CALL(SYS_prctl, PR_CAPBSET_READ, 0, 0, 0, 0); }
static long prctl_ambient(void) { return CALL(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0); }
static long prctl_securebits(void) { return CALL(SYS_prctl, PR_SET_SECUREBITS, 0, 0, 0, 0); }
static long prctl_death_signal(void) { return CALL(SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0); }
static long seccomp_own(void) { return CALL(SYS_seccomp, 2, 0, &(uint32_t){0}); }
static long landlock_own(void) { return CALL(444, NULL, 0, 1); }
static long prlimit_raise(void) { return CALL(SYS_prlimit64, 0, RLIMIT_AS, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}, NULL); }
static long prlimit_other(void) { return CALL(SYS_prlimit64, other(), RLIMIT_CORE, NULL, NULL); }
static long personality_exec(void) { return CALL(SYS_personality, 0x0400000); }
static long keyctl_session(void) { return CALL(SYS_keyctl, 0, -3, 0); }
static long add_key(void) { return CALL(SYS_add_key, "user", "martlet", "x", 1, -1); }
static long bpf_load(void) { return CALL(SYS_bpf, 5, page, 48); }
static long perf_event(void) { return CALL(SYS_perf_event_open, page, 0, -1, -1, 0); }

// MARK: The machine

static long reboot_badly(void) { return CALL(SYS_reboot, 0, 0, 0, NULL); }
static long init_module_none(void) { return CALL(SYS_init_module, NULL, 0, ""); }
static long kexec_none(void) { return CALL(SYS_kexec_load, 0, 1000, NULL, 0); }
static long swapon_nowhere(void) { return CALL(SYS_swapon, nowhere, 0); }
static long settime(void) { return CALL(SYS_clock_settime, 12345, NULL); }
static long sethostname_badly(void) { return CALL(SYS_sethostname, NULL, -1); }
static long syslog_size(void) { return CALL(SYS_syslog, 10, NULL, 0); }
static long acct_nowhere(void) { return CALL(SYS_acct, nowhere); }

// MARK: The filter itself

static long handle_sigsys(void) {
  struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } ignore = {SIG_IGN, 0, NULL, 0};
  return CALL(SYS_rt_sigaction, SIGSYS, &ignore, NULL, 8);
}
static long handle_sigsegv(void) {
  struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } ignore = {SIG_IGN, 0, NULL, 0};
  return CALL(SYS_rt_sigaction, SIGSEGV, &ignore, NULL, 8);
}
static long alternate_stack(void) { return CALL(SYS_sigaltstack, NULL, NULL); }
static long open_with_sigsys_blocked(void) {
  uint64_t all = ~0UL;
  syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, 8);
  return openat_passwd();
}
static long open_with_full_socket(void) {
  for (int i = 0; i < 100000 && syscall(SYS_sendto, CONTROL, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0) == 1; i++) {}
  return openat_passwd();
}
#if defined(__x86_64__)
static long open_without_stack(void) {
  register long r10 __asm__("r10") = 0;
  long r;
  __asm__ volatile("mov %%rsp, %%rbx; xor %%esp, %%esp; syscall; mov %%rbx, %%rsp"
                   : "=a"(r) : "a"(SYS_openat), "D"((long)AT_FDCWD), "S"("/etc/passwd"), "d"(0L), "r"(r10) : "rbx", "rcx", "r11", "memory");
  return r;
}
// getpid(2) of the 32-bit table, which a filter of the 64-bit one alone would take for writev(2).
static long i386_getpid(void) {
  long r;
  __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
  return r;
}
static long x32_getpid(void) { return CALL(0x40000000 + SYS_getpid); }
static long modify_ldt_read(void) { return CALL(SYS_modify_ldt, 0, page, sizeof page); }
static long arch_prctl_get(void) { return CALL(SYS_arch_prctl, 0x1003, page); }
static long iopl_three(void) { return CALL(SYS_iopl, 3); }
static long ioperm_one(void) { return CALL(SYS_ioperm, 0x80, 1, 1); }
static long open_old(void) { return CALL(SYS_open, "/etc/passwd", O_RDONLY); }
static long fork_old(void) {
  long pid = CALL(SYS_fork);
  leave(pid);
  return pid;
}
#endif

static const struct { const char *name; long (*make)(void); const char *expectation; } attempts[] = {
  {"openat", openat_passwd, "killed openat"}, {"openat-root", openat_root, "killed openat"},
  {"openat-proc-self", openat_proc, "killed openat"}, {"openat-other-arena", openat_other_arena, "killed openat"},
  {"openat2", openat2_passwd, "killed openat2"}, {"execve", execve_true, "killed execve"},
  {"execveat", execveat_arena, "killed execveat"}, {"fstatat", fstatat_root, "killed newfstatat"},
  {"readlinkat", readlinkat_self, "killed readlinkat"}, {"unlinkat", unlinkat_nowhere, "killed unlinkat"},
  {"mkdirat", mkdirat_nowhere, "killed mkdirat"}, {"getdents", getdents_arena, "killed getdents64"},
  {"name-to-handle", name_to_handle, "killed name_to_handle_at"}, {"open-by-handle", open_by_handle, "killed open_by_handle_at"},
  {"mount", mount_nowhere, "killed mount"}, {"umount", umount_nowhere, "killed umount2"},
  {"pivot-root", pivot_root_nowhere, "killed pivot_root"}, {"chroot", chroot_root, "killed chroot"},
  {"chdir", chdir_root, "killed chdir"}, {"fsopen", fsopen_proc, "killed fsopen"},
  {"open-tree", open_tree_root, "killed open_tree"}, {"ftruncate-arena", ftruncate_arena, "killed ftruncate"},
  {"fallocate-arena", fallocate_arena, "killed fallocate"}, {"inotify", inotify, "killed inotify_init1"},
  {"fanotify", fanotify, "killed fanotify_init"},
  {"mmap-exec", mmap_exec, "killed mmap"}, {"mmap-exec-arena", mmap_exec_arena, "killed mmap"},
  {"mmap-arena", mmap_arena, "killed mmap"}, {"mmap-grows-down", mmap_grows_down, "killed mmap"},
  {"mmap-much", mmap_much, "refused: Cannot allocate memory"}, {"brk-much", brk_much, "refused: Cannot allocate memory"},
  {"mprotect-exec", mprotect_exec, "killed mprotect"}, {"mprotect-text", mprotect_text, "killed mprotect"},
  {"pkey-mprotect", pkey_mprotect_exec, "killed pkey_mprotect"}, {"mremap", mremap_page, "killed mremap"},
  {"remap-file-pages", remap_file_pages_arena, "killed remap_file_pages"}, {"mlock", mlock_page, "killed mlock"},
  {"mlockall", mlockall_all, "killed mlockall"}, {"madvise", madvise_fork, "killed madvise"},
  {"memfd", memfd, "killed memfd_create"}, {"memfd-secret", memfd_secret, "killed memfd_secret"},
  {"userfaultfd", userfaultfd, "killed userfaultfd"}, {"shmget", shmget_exec, "killed shmget"},
  {"process-vm-readv", process_vm_readv_other, "killed process_vm_readv"},
  {"process-vm-writev", process_vm_writev_other, "killed process_vm_writev"},
  {"process-madvise", process_madvise_none, "killed process_madvise"}, {"mbind", mbind_page, "killed mbind"},
  {"move-pages", move_pages_self, "killed move_pages"},
  {"socket-inet", socket_inet, "killed socket"}, {"socket-unix", socket_unix, "killed socket"},
  {"socket-netlink", socket_netlink, "killed socket"}, {"socket-packet", socket_packet, "killed socket"},
  {"socket-vsock", socket_vsock, "killed socket"}, {"socketpair", socketpair_unix, "killed socketpair"},
  {"connect", connect_control, "killed connect"}, {"bind", bind_control, "killed bind"},
  {"listen", listen_control, "killed listen"}, {"accept", accept_control, "killed accept4"},
  {"setsockopt", setsockopt_control, "killed setsockopt"}, {"shutdown", shutdown_control, "killed shutdown"},
  {"sendmsg-other", sendmsg_other, "killed sendmsg"}, {"sendto-device", sendto_device, "killed sendto"},
  {"dup", dup_control, "killed dup"}, {"fcntl-dup", fcntl_dup, "killed fcntl"}, {"fcntl-owner", fcntl_owner, "killed fcntl"},
  {"fcntl-seals", fcntl_seals, "killed fcntl"}, {"ioctl-tiocsti", ioctl_tiocsti, "killed ioctl"},
  {"ioctl-map-dma", ioctl_map_dma, "killed ioctl"}, {"ioctl-vfio-feature", ioctl_vfio_feature, "killed ioctl"}, {"ioctl-vfio-other", ioctl_vfio_other, "killed ioctl"},
  {"pread-arena", pread_arena, "killed pread64"}, {"ioctl-fionread", ioctl_fionread, "killed ioctl"},
  {"pipe", pipe_new, "killed pipe2"}, {"eventfd", eventfd_new, "killed eventfd2"}, {"epoll", epoll_new, "killed epoll_create1"},
  {"timerfd", timerfd_new, "killed timerfd_create"}, {"signalfd", signalfd_new, "killed signalfd4"},
  {"splice", splice_control, "killed splice"}, {"io-uring", io_uring, "killed io_uring_setup"},
  {"pidfd-open", pidfd_open_other, "killed pidfd_open"}, {"pidfd-getfd", pidfd_getfd_any, "killed pidfd_getfd"},
  {"mq-open", message_queue, "killed mq_open"},
  {"fork", fork_child, "killed clone"}, {"clone-namespaces", clone_namespaces, "killed clone"},
  {"clone3", clone3_child, "killed clone3"}, {"thread", thread, "killed"},
  {"unshare-net", unshare_net, "killed unshare"}, {"unshare-user", unshare_user, "killed unshare"},
  {"setns", setns_control, "killed setns"}, {"ptrace", ptrace_other, "killed ptrace"}, {"kcmp", kcmp_other, "killed kcmp"},
  {"kill-all", kill_all, "killed kill"}, {"kill-other", kill_other, "killed kill"}, {"tgkill", tgkill_kill, "killed tgkill"},
  {"tgkill-other", tgkill_other, "refused: No such process"}, {"sigqueue", sigqueue_other, "killed rt_sigqueueinfo"},
  {"pidfd-signal", pidfd_signal, "killed pidfd_send_signal"}, {"setpgid", setpgid_self, "killed setpgid"},
  {"setsid", setsid_self, "killed setsid"}, {"affinity", set_affinity, "killed sched_setaffinity"},
  {"scheduler", set_scheduler, "killed sched_setscheduler"}, {"nice", nice_up, "killed setpriority"},
  {"futex-requeue-pi", futex_requeue_pi, "killed futex"}, {"futex-waitv", futex_waitv, "killed futex_waitv"},
  {"setuid", setuid_root, "killed setuid"}, {"setresuid", setresuid_other, "killed setresuid"},
  {"setgid", setgid_root, "killed setgid"}, {"setgroups", setgroups_root, "killed setgroups"},
  {"capset", capset_all, "killed capset"}, {"prctl-dumpable", prctl_dumpable, "killed prctl"},
  {"prctl-bounding", prctl_bounding, "killed prctl"}, {"prctl-ambient", prctl_ambient, "killed prctl"},
  {"prctl-securebits", prctl_securebits, "killed prctl"}, {"prctl-death-signal", prctl_death_signal, "killed prctl"},
  {"seccomp", seccomp_own, "killed seccomp"}, {"landlock", landlock_own, "killed landlock_create_ruleset"},
  {"prlimit-raise", prlimit_raise, "killed prlimit64"}, {"prlimit-other", prlimit_other, "killed prlimit64"},
  {"personality", personality_exec, "killed personality"}, {"keyctl", keyctl_session, "killed keyctl"},
  {"add-key", add_key, "killed add_key"}, {"bpf", bpf_load, "killed bpf"}, {"perf-event", perf_event, "killed perf_event_open"},
  {"reboot", reboot_badly, "killed reboot"}, {"init-module", init_module_none, "killed init_module"},
  {"kexec", kexec_none, "killed kexec_load"}, {"swapon", swapon_nowhere, "killed swapon"},
  {"clock-settime", settime, "killed clock_settime"}, {"sethostname", sethostname_badly, "killed sethostname"},
  {"syslog", syslog_size, "killed syslog"}, {"acct", acct_nowhere, "killed acct"},
  {"handle-sigsys", handle_sigsys, "killed rt_sigaction"}, {"handle-sigsegv", handle_sigsegv, "killed rt_sigaction"},
  {"sigaltstack", alternate_stack, "killed sigaltstack"},
  {"sigsys-blocked", open_with_sigsys_blocked, "killed"}, {"socket-full", open_with_full_socket, "killed"},
#if defined(__x86_64__)
  {"no-stack", open_without_stack, "ended by signal 11"}, {"i386", i386_getpid, "killed of architecture 0x40000003, getpid"},
  {"x32", x32_getpid, "killed"}, {"modify-ldt", modify_ldt_read, "killed modify_ldt"},
  {"arch-prctl", arch_prctl_get, "killed arch_prctl"}, {"iopl", iopl_three, "killed iopl"}, {"ioperm", ioperm_one, "killed ioperm"},
  {"open", open_old, "killed open"}, {"fork-old", fork_old, "killed fork"},
#endif
};

enum { COUNT = sizeof attempts / sizeof *attempts };

const char *escape_attempt_name(int index) { return index >= 0 && index < COUNT ? attempts[index].name : NULL; }
const char *escape_attempt_expectation(int index) { return attempts[index].expectation; }
long escape_attempt(int index) { return index >= 0 && index < COUNT ? attempts[index].make() : -EINVAL; }

int escape_control(void) {
  int ends[2];
  // The descriptors that a driver host has, in the same places.
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) < 0) return 1;
  int peer = fcntl(ends[1], F_DUPFD, 20);
  int arena = (int)syscall(SYS_memfd_create, "arena", 2 /* MFD_ALLOW_SEALING */);
  int arena_high = fcntl(arena, F_DUPFD, 20);
  if (peer < 0 || arena_high < 0 || ftruncate(arena_high, 1 << 21) < 0) return 1;
  int control = fcntl(ends[0], F_DUPFD, 20);
  dup2(control, CONTROL);
  dup2(control, DEVICE);
  dup2(arena_high, ARENA);
  dup2(control, 7);
  for (int i = 0; i < COUNT; i++) {
    printf("%s ", attempts[i].name);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
      // Nothing here waits for long.
      alarm(5);
      long r = attempts[i].make();
      printf("%s\n", r >= 0 ? "DONE" : strerror((int)-r));
      fflush(stdout);
      _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) < 0) return 1;
    if (WIFSIGNALED(status)) printf("ended by signal %d\n", WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0 || strcmp(attempts[i].name, "execve") == 0) printf("ran\n");
  }
  return 0;
}
