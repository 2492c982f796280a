// A client of the broker that tries what a handle must not allow: as another user, as the same user, as root. It speaks
// the protocol by itself. Run as root: handles-hostile SOCKET. Prints each attempt, and ends with a count.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
enum { OWNER = 65001, RECEIVER = 65002, STRANGER = 65003, PAGE = 4096 };
static const char *path;
static int failures, attempts;

static void check(int good, const char *who, const char *what) {
  attempts++;
  if (!good) failures++;
  printf("%s %s: %s (errno %s)\n", good ? "refused" : "NOT REFUSED", who, what, strerrorname_np(errno) ?: "0");
  fflush(stdout);
}
static void require(int good, const char *what) {
  if (good) return;
  printf("BROKEN: %s: %s\n", what, strerror(errno));
  fflush(stdout);
  _exit(99);
}

static int transmit(int s, const char *text, const int *fds, int n) {
  char control[CMSG_SPACE(16 * sizeof(int))] = {0};
  struct iovec v = {(void *)text, strlen(text)};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
  if (n > 0) {
    m.msg_control = control;
    m.msg_controllen = CMSG_SPACE(n * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));
  }
  return sendmsg(s, &m, MSG_NOSIGNAL);
}
static char answer[20000];
static int receive(int s) {
  char control[CMSG_SPACE(16 * sizeof(int))];
  struct iovec v = {answer, sizeof answer - 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  int fd = -1;
  ssize_t r = recvmsg(s, &m, MSG_CMSG_CLOEXEC);
  answer[r < 0 ? 0 : r] = 0;
  struct cmsghdr *c = r < 0 ? NULL : CMSG_FIRSTHDR(&m);
  if (c && c->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(c), sizeof fd);
  errno = 0;
  return fd;
}
static int ask(int s, const char *text, const int *fds, int n) {
  require(transmit(s, text, fds, n) >= 0, text);
  return receive(s);
}
static int is(const char *text) { return strcmp(answer, text) == 0; }
static int begins(const char *text) { return strncmp(answer, text, strlen(text)) == 0; }
static int unknown(void) { return is("refused reason=unknown-handle"); }
static int dial(void) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strcpy(a.sun_path, path);
  int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  struct timeval limit = {5, 0};
  setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  require(connect(s, (void *)&a, sizeof a) == 0, "connect");
  receive(s);
  require(is("hello version=1"), "greeting");
  return s;
}
static void become(int uid) { require(setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0, "setresuid"); }

// Memory of one page whose maker alone writes; *reader is for others.
static char *publish(int *writer, int *reader, int more, int kept) {
  char name[64];
  *writer = memfd_create("published", MFD_ALLOW_SEALING | MFD_CLOEXEC);
  fchmod(*writer, 0400);
  require(ftruncate(*writer, PAGE) == 0, "ftruncate");
  snprintf(name, sizeof name, "/proc/self/fd/%d", *writer);
  *reader = open(name, O_RDONLY | O_CLOEXEC);
  char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, *writer, 0);
  require(p != MAP_FAILED && fcntl(*writer, F_ADD_SEALS, (F_SEAL_SHRINK & ~kept) | F_SEAL_GROW | F_SEAL_SEAL | more) == 0, "seals");
  strcpy(p, "secret");
  return p;
}
static void made(char id[33]) {
  require(begins("created id="), answer);
  memcpy(id, answer + 11, 32);
  id[32] = 0;
}

// Runs a part in a process of its own, as a user.
#define AS(uid, ...)                                                        \
  do {                                                                      \
    fflush(stdout);                                                         \
    int pid_ = fork();                                                      \
    if (pid_ == 0) { failures = attempts = 0; if (uid) become(uid); __VA_ARGS__; fflush(stdout); _exit(failures ? 98 : attempts); } \
    int status_; waitpid(pid_, &status_, 0);                                \
    require(WIFEXITED(status_) && WEXITSTATUS(status_) < 97, "a part failed"); \
    attempts += WEXITSTATUS(status_);                                       \
  } while (0)

// Every way to write to memory of which only a reader's descriptor was given.
static void write_anyway(const char *who, int reader) {
  char name[64];
  errno = 0;
  snprintf(name, sizeof name, "/proc/self/fd/%d", reader);
  check(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, reader, 0) == MAP_FAILED, who, "writable mapping of the descriptor");
  check(write(reader, "x", 1) < 0, who, "write(2)");
  check(pwrite(reader, "x", 1, 0) < 0, who, "pwrite(2)");
  check(ftruncate(reader, 0) < 0, who, "ftruncate(2)");
  check(truncate(name, 0) < 0, who, "truncate(2) by /proc");
  check(fallocate(reader, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) < 0, who, "punching a hole");
  check(fcntl(reader, F_ADD_SEALS, F_SEAL_WRITE) < 0, who, "adding a seal");
  char *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 0);
  require(p != MAP_FAILED && !strcmp(p, "secret"), "reading");
  check(mprotect(p, PAGE, PROT_READ | PROT_WRITE) < 0, who, "mprotect(2) of a mapping for reading");
  check(madvise(p, PAGE, MADV_REMOVE) < 0, who, "MADV_REMOVE");
  check(madvise(p, PAGE, MADV_POPULATE_WRITE) < 0, who, "MADV_POPULATE_WRITE");
  int self = open("/proc/self/mem", O_RDWR);
  check(self < 0 || pwrite(self, "x", 1, (off_t)(uintptr_t)p) < 0, who, "/proc/self/mem");
  struct iovec here = {"x", 1}, there = {p, 1};
  check(process_vm_writev(getpid(), &here, 1, &there, 1, 0) < 0, who, "process_vm_writev(2)");
  int pipes[2];
  require(pipe(pipes) == 0 && write(pipes[1], "x", 1) == 1, "pipe");
  check(read(pipes[0], p, 1) < 0, who, "read(2) into the mapping");
  off_t at = 0;
  check(splice(pipes[0], NULL, reader, &at, 1, 0) < 0, who, "splice(2)");
  int faults = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
  struct uffdio_api api = {.api = UFFD_API};
  struct uffdio_register range = {.range = {(uintptr_t)p, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  check(faults < 0 || ioctl(faults, UFFDIO_API, &api) < 0 || ioctl(faults, UFFDIO_REGISTER, &range) < 0, who, "userfaultfd");
  fchmod(reader, 0666);
  int anew = open(name, O_RDWR);
  if (anew < 0) {
    check(1, who, "opening anew for writing");
  } else {
    // Root and the owner's user may open it so; the seals hold all the same.
    check(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, anew, 0) == MAP_FAILED, who, "writable mapping, opened anew");
    check(write(anew, "x", 1) < 0, who, "write(2), opened anew");
    check(ftruncate(anew, 0) < 0 && ftruncate(anew, 2 * PAGE) < 0, who, "another size, opened anew");
    check(fallocate(anew, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) < 0, who, "a hole, opened anew");
    check(fcntl(anew, F_ADD_SEALS, F_SEAL_WRITE) < 0, who, "a seal, opened anew");
    p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, anew, 0);
    check(mprotect(p, PAGE, PROT_READ | PROT_WRITE) < 0, who, "mprotect(2), opened anew");
  }
  p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 0);
  check(!strcmp(p, "secret"), who, "any change of the bytes");
}

static sigjmp_buf back;
static void caught(int signal) { siglongjmp(back, signal); }

// An owner of another user; its children inherit nothing but ids.
static void owner_part(void) {
  int s = dial(), writer, reader;
  char id[33], other[33], served[33], text[600];
  char *page = publish(&writer, &reader, F_SEAL_FUTURE_WRITE, 0);
  snprintf(text, sizeof text, "create kind=mapped rights=r offset=0 bytes=4096 uid=%d", RECEIVER);
  ask(s, text, &reader, 1);
  made(id);
  snprintf(text, sizeof text, "create kind=mapped rights=r offset=0 bytes=4096 uid=%d", OWNER);
  ask(s, text, &reader, 1);
  made(other);
  check((ask(s, text, &writer, 1), is("refused reason=writable-descriptor")), "owner", "a reader's descriptor that is open for writing");
  snprintf(text, sizeof text, "create kind=mapped rights=r offset=0 bytes=2048 uid=%d", RECEIVER);
  check((ask(s, text, &reader, 1), is("refused reason=part-of-memory")), "owner", "a descriptor for a part");
  snprintf(text, sizeof text, "create kind=served rights=r offset=18446744073709551615 bytes=2 uid=%d", RECEIVER);
  check((ask(s, text, &reader, 1), is("refused reason=out-of-range")), "owner", "a range that wraps");
  snprintf(text, sizeof text, "create kind=served rights=rw offset=0 bytes=2 uid=%d", RECEIVER);
  check((ask(s, text, &reader, 1), is("refused reason=read-only-descriptor")), "owner", "writing to what cannot be written");
  snprintf(text, sizeof text, "create kind=served rights=r offset=1 bytes=3 uid=%d", RECEIVER);
  ask(s, text, &reader, 1);
  made(served);
  printf("%s %s %s\n", id, other, served);
  fflush(stdout);
  // Same user: its handle is for this user, a child of another process number may use it.
  AS(0, int c = dial(); snprintf(text, sizeof text, "open id=%s", other); int fd = ask(c, text, NULL, 0); require(fd >= 0, "open"); write_anyway("same user", fd));
  AS(0, int c = dial(); snprintf(text, sizeof text, "open id=%s", id); check((ask(c, text, NULL, 0) < 0 && unknown()), "same user", "the handle of another receiver"));
  require(!strcmp(page, "secret"), "the owner's bytes");
  // The ids are known to root's part, which tries them as others.
  char go;
  require(read(0, &go, 1) == 1, "waiting");
  _exit(failures ? 98 : attempts);
}

// A file whose server never answers FLUSH: close(2) of it waits for ever.
static void serve_file(int device) {
  _Alignas(8) static char request[1 << 17];
  while (1) {
    ssize_t n = read(device, request, sizeof request);
    if (n < 0 && errno == EINTR) continue;
    if (n < (ssize_t)sizeof(struct fuse_in_header)) _exit(0);
    struct fuse_in_header *in = (void *)request;
    struct { struct fuse_out_header head; union { struct fuse_init_out init; struct fuse_attr_out attr; struct fuse_open_out open; }; } out = {0};
    out.head.unique = in->unique;
    out.head.len = sizeof out.head;
    switch (in->opcode) {
    case FUSE_INIT: out.init.major = 7, out.init.minor = 31, out.init.max_write = 4096, out.head.len += sizeof out.init; break;
    case FUSE_GETATTR: out.attr.attr.mode = S_IFREG | 0666, out.attr.attr.nlink = out.attr.attr.ino = 1, out.head.len += sizeof out.attr; break;
    case FUSE_OPEN: out.open.fh = 1, out.head.len += sizeof out.open; break;
    case FUSE_FLUSH: case FUSE_RELEASE: case FUSE_FORGET: case FUSE_INTERRUPT: continue;
    default: out.head.error = -ENOSYS;
    }
    (void)!write(device, &out, out.head.len);
  }
}
static void files_that_wait(void) {
  char file[] = "/tmp/handles-XXXXXX", options[100], text[600];
  int device = open("/dev/fuse", O_RDWR | O_CLOEXEC), made_file = mkstemp(file);
  close(made_file);
  snprintf(options, sizeof options, "fd=%d,rootmode=100000,user_id=0,group_id=0,allow_other", device);
  if (device < 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("waits", file, "fuse", 0, options) < 0) {
    printf("skipped: no file system in user space here\n");
    unlink(file);
    return;
  }
  int server = fork();
  if (server == 0) serve_file(device);
  close(device);
  // Another user, made before there is a descriptor that would keep it from ending.
  int go[2], status;
  require(pipe(go) == 0, "pipe");
  fflush(stdout);
  int another = fork();
  if (another == 0) {
    char byte;
    become(RECEIVER);
    (void)!read(go[0], &byte, 1);
    int s = dial();
    check((ask(s, "list after=0", NULL, 0), is("end")), "owner", "holding the broker from others by them");
    _exit(failures ? 98 : 0);
  }
  int fd = open(file, O_RDWR), c = dial(), others = dial();
  require(fd >= 0, "the file that waits");
  snprintf(text, sizeof text, "create kind=served rights=r offset=0 bytes=1 uid=0");
  check((ask(c, text, &fd, 1), is("refused reason=not-memory")), "owner", "a file whose server never answers");
  check((ask(others, "list after=0", NULL, 0), begins("handle") || is("end")), "owner", "holding the broker by it");
  for (int i = 0; i < 50 && !is("refused reason=too-many"); i++) transmit(c, text, &fd, 1), receive(c);
  check(is("refused reason=too-many"), "owner", "more and more of such files");
  (void)!write(go[1], "x", 1);
  waitpid(another, &status, 0);
  require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "another user");
  attempts++;
  kill(server, SIGKILL);
  waitpid(server, NULL, 0);
  umount2(file, MNT_DETACH);
  unlink(file);
}

int main(int count, char **arguments) {
  require(count == 2, "usage: handles-hostile SOCKET");
  path = arguments[1];
  char id[33], other[33], served[33], text[600], line[600];
  int to[2], from[2];
  require(pipe(to) == 0 && pipe(from) == 0, "pipe");
  int owner = fork();
  if (owner == 0) {
    dup2(to[0], 0);
    close(to[1]);
    int all = dup(1);
    dup2(from[1], 1);
    (void)all;
    become(OWNER);
    owner_part();
  }
  close(from[1]);
  FILE *told = fdopen(from[0], "r");
  int ids = 0;
  while (!ids && fgets(line, sizeof line, told)) {
    ids = sscanf(line, "%32s %32s %32s", id, other, served) == 3 && strlen(id) == 32 && strlen(served) == 32;
    if (!ids) printf("%s", line);
  }
  require(ids, "the owner's ids");

  AS(RECEIVER, int s = dial(); snprintf(text, sizeof text, "open id=%s", id); int fd = ask(s, text, NULL, 0); require(fd >= 0, "open"); write_anyway("other user", fd));
  // Root has to be given the descriptor by the receiver: the broker does not open it for root.
  AS(0, int s = dial(); snprintf(text, sizeof text, "open id=%s", id); check(ask(s, text, NULL, 0) < 0 && unknown(), "root", "the handle of another receiver"));
  int pair[2];
  require(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0, "socketpair");
  AS(RECEIVER, int s = dial(); snprintf(text, sizeof text, "open id=%s", id); int fd = ask(s, text, NULL, 0); transmit(pair[1], "x", &fd, 1));
  int passed = receive(pair[0]);
  require(passed >= 0, "a passed descriptor");
  AS(0, write_anyway("root", passed));

  AS(STRANGER, int s = dial();
     snprintf(text, sizeof text, "open id=%s", id); check(ask(s, text, NULL, 0) < 0 && unknown(), "stranger", "an id that it has seen");
     snprintf(text, sizeof text, "read id=%s offset=0 bytes=1", served); check((ask(s, text, NULL, 0), unknown()), "stranger", "reading by an id that it has seen");
     snprintf(text, sizeof text, "revoke id=%s", id); check((ask(s, text, NULL, 0), unknown()), "stranger", "revoking what is another's");
     check((ask(s, "revoke number=1", NULL, 0), unknown()), "stranger", "revoking by number");
     check((ask(s, "list after=0", NULL, 0), is("end")), "stranger", "seeing what others have");
     check((ask(s, "counters", NULL, 0), is("refused reason=not-owner")), "stranger", "seeing what was counted");
     int hits = 0;
     for (int i = 0; i < 2000; i++) { snprintf(text, sizeof text, "open id=%016lx%016lx", random() * 2654435761UL, random() * 40503UL); ask(s, text, NULL, 0); hits += !unknown(); }
     check(hits == 0, "stranger", "2000 guesses");
     for (int i = 0; i < 128; i++) { strcpy(line, id); int d = i / 4; unsigned v = (line[d] <= '9' ? line[d] - '0' : line[d] - 'a' + 10) ^ 1u << i % 4; line[d] = "0123456789abcdef"[v]; snprintf(text, sizeof text, "open id=%s", line); ask(s, text, NULL, 0); hits += !unknown(); }
     check(hits == 0, "stranger", "128 ids that differ in one bit"));

  AS(RECEIVER, int s = dial();
     snprintf(text, sizeof text, "read id=%s offset=0 bytes=3", served); ask(s, text, NULL, 0); require(is("data hex=656372"), answer);
     snprintf(text, sizeof text, "read id=%s offset=2 bytes=2", served); check((ask(s, text, NULL, 0), is("refused reason=out-of-range")), "receiver", "reading over the end");
     snprintf(text, sizeof text, "read id=%s offset=18446744073709551615 bytes=1", served); check((ask(s, text, NULL, 0), is("refused reason=out-of-range")), "receiver", "reading before the start by wrapping");
     snprintf(text, sizeof text, "read id=%s offset=1 bytes=18446744073709551615", served); check((ask(s, text, NULL, 0), is("refused reason=out-of-range")), "receiver", "a length that wraps");
     snprintf(text, sizeof text, "read id=%s offset=0 bytes=0", served); check((ask(s, text, NULL, 0), is("refused reason=empty")), "receiver", "reading nothing");
     snprintf(text, sizeof text, "write id=%s offset=0 hex=00", served); check((ask(s, text, NULL, 0), is("refused reason=no-right")), "receiver", "writing without the right");
     snprintf(text, sizeof text, "open id=%s", served); check(ask(s, text, NULL, 0) < 0 && is("refused reason=not-mapped"), "receiver", "the descriptor of a served range");
     snprintf(text, sizeof text, "revoke id=%s", served); check((ask(s, text, NULL, 0), unknown()), "receiver", "revoking its owner's handle");
     // A child has the socket, but is another process.
     snprintf(text, sizeof text, "read id=%s offset=0 bytes=3", served);
     AS(0, check((ask(s, text, NULL, 0), is("refused reason=foreign-sender")), "child", "its parent's connection")));

  // One process, by pidfd: a sibling of the same user, and a later process with the same number, are not meant.
  int s = dial(), writer, reader, gate[2];
  publish(&writer, &reader, F_SEAL_FUTURE_WRITE, 0);
  require(pipe(gate) == 0, "pipe");
  int meant = fork();
  if (meant == 0) { char c; close(gate[1]); (void)!read(gate[0], &c, 1); _exit(0); }
  int pidfds[2] = {reader, syscall(SYS_pidfd_open, meant, 0)};
  snprintf(text, sizeof text, "create kind=mapped rights=r offset=0 bytes=4096 uid=%d process=1", RECEIVER);
  ask(s, text, pidfds, 2);
  made(id);
  AS(RECEIVER, int c = dial(); snprintf(text, sizeof text, "open id=%s", id); check(ask(c, text, NULL, 0) < 0 && unknown(), "sibling", "the handle of one process"));
  close(gate[1]);
  waitpid(meant, NULL, 0);
  snprintf(line, sizeof line, "%d", meant - 1);
  int last = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC), again = -1;
  for (int i = 0; last >= 0 && i < 50 && again != meant; i++) {
    (void)!pwrite(last, line, strlen(line), 0);
    fflush(stdout);
    again = fork();
    if (again == 0) {
      if (getpid() != meant) _exit(0);
      failures = attempts = 0;
      become(RECEIVER);
      int c = dial();
      snprintf(text, sizeof text, "open id=%s", id);
      check(ask(c, text, NULL, 0) < 0 && unknown(), "recycled", "the handle of an ended process, with its number");
      _exit(failures ? 98 : attempts);
    }
    int status;
    waitpid(again, &status, 0);
    if (again == meant) { require(WEXITSTATUS(status) == 1, "the recycled number"); attempts++; }
  }
  if (again != meant) printf("skipped: no process got the same number again\n");
  check((ask(s, text, pidfds, 2), begins("refused")), "owner", "a process that has ended as receiver");

  // Time, number of uses, revocation.
  snprintf(text, sizeof text, "create kind=mapped rights=r offset=0 bytes=4096 uid=0 milliseconds=30");
  ask(s, text, &reader, 1), made(id);
  usleep(60000);
  snprintf(text, sizeof text, "open id=%s", id);
  check(ask(s, text, NULL, 0) < 0 && is("refused reason=expired"), "receiver", "a handle whose time is over");
  ask(s, "create kind=served rights=r offset=0 bytes=4096 uid=0 uses=1", &reader, 1), made(id);
  snprintf(text, sizeof text, "read id=%s offset=0 bytes=6", id);
  ask(s, text, NULL, 0), require(is("data hex=736563726574"), answer);
  check((ask(s, text, NULL, 0), is("refused reason=used-up")), "receiver", "a second use of one");
  ask(s, "create kind=served rights=r offset=0 bytes=4096 uid=0", &reader, 1), made(id);
  snprintf(text, sizeof text, "revoke id=%s", id), ask(s, text, NULL, 0), require(begins("revoked"), answer);
  snprintf(text, sizeof text, "read id=%s offset=0 bytes=6", id);
  check((ask(s, text, NULL, 0), is("refused reason=revoked")), "receiver", "a handle that was revoked");
  AS(STRANGER, int c = dial(); check((ask(c, text, NULL, 0), unknown()), "stranger", "learning that a handle was revoked"));

  // Pages that are taken away, while another user has them mapped.
  int cut[2];
  publish(&cut[1], &cut[0], F_SEAL_FUTURE_WRITE, F_SEAL_SHRINK);
  snprintf(text, sizeof text, "create kind=revocable rights=r offset=0 bytes=4096 uid=%d", RECEIVER);
  ask(s, text, cut, 2), made(id);
  int ready[2], gone[2];
  require(pipe(ready) == 0 && pipe(gone) == 0, "pipe");
  fflush(stdout);
  int mapper = fork();
  if (mapper == 0) {
    failures = attempts = 0;
    become(RECEIVER);
    int c = dial();
    char byte;
    snprintf(text, sizeof text, "open id=%s", id);
    int fd = ask(c, text, NULL, 0);
    require(fd >= 0, answer);
    snprintf(line, sizeof line, "/proc/self/fd/%d", fd);
    check(open(line, O_RDWR) < 0, "other user", "opening revocable memory for writing");
    check(ftruncate(fd, 0) < 0, "other user", "cutting revocable memory");
    volatile char *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    require(p[0] == 's', "reading");
    (void)!write(ready[1], "x", 1);
    (void)!read(gone[0], &byte, 1);
    signal(SIGBUS, caught);
    int caught_signal = sigsetjmp(back, 1);
    if (caught_signal == 0) byte = p[0];
    check(caught_signal == SIGBUS, "receiver", "reading a mapping that was taken away");
    check(pread(fd, &byte, 1, 0) <= 0, "receiver", "reading the descriptor after it");
    check(ftruncate(fd, PAGE) < 0, "receiver", "making it long again");
    check(ask(c, text, NULL, 0) < 0 && is("refused reason=revoked"), "receiver", "opening after it");
    _exit(failures ? 98 : attempts);
  }
  char byte;
  require(read(ready[0], &byte, 1) == 1, "the mapper");
  snprintf(text, sizeof text, "revoke id=%s", id), ask(s, text, NULL, 0), require(begins("revoked"), answer);
  (void)!write(gone[1], "x", 1);
  int status;
  waitpid(mapper, &status, 0);
  require(WIFEXITED(status) && WEXITSTATUS(status) < 97, "the mapper's part");
  attempts += WEXITSTATUS(status);

  // Capture: a producer's ring, which another user maps but never writes, while it is written.
  int ring_writer, ring_reader;
  char *ring = publish(&ring_writer, &ring_reader, F_SEAL_FUTURE_WRITE, 0);
  volatile uint64_t *produced = (volatile uint64_t *)ring;
  *produced = 0;
  snprintf(text, sizeof text, "create kind=mapped rights=r offset=0 bytes=4096 uid=%d", RECEIVER);
  ask(s, text, &ring_reader, 1), made(id);
  fflush(stdout);
  int capture = fork();
  if (capture == 0) {
    failures = attempts = 0;
    munmap(ring, PAGE);
    become(RECEIVER);
    int c = dial();
    snprintf(text, sizeof text, "open id=%s", id);
    int fd = ask(c, text, NULL, 0);
    volatile uint64_t *seen = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    require(seen != MAP_FAILED, "capture");
    uint64_t taken = 0;
    for (int i = 0; i < 5000 && taken < 1000; i++) {
      for (uint64_t n = __atomic_load_n(seen, __ATOMIC_ACQUIRE); taken < n; taken++) require(seen[1 + taken % 500] >= taken * 3, "a packet");
      usleep(1000);
    }
    require(taken == 1000, "all packets");
    signal(SIGSEGV, caught);
    int caught_signal = sigsetjmp(back, 1);
    if (caught_signal == 0) seen[1] = 7;
    check(caught_signal == SIGSEGV, "capture", "writing to the ring");
    _exit(failures ? 98 : attempts);
  }
  for (uint64_t n = 0; n < 1000; n++) {
    ((volatile uint64_t *)ring)[1 + n % 500] = n * 3;
    __atomic_store_n((uint64_t *)ring, n + 1, __ATOMIC_RELEASE);
    if (n % 10 == 0) usleep(1000);
  }
  waitpid(capture, &status, 0);
  require(WIFEXITED(status) && WEXITSTATUS(status) < 97, "the capture");
  attempts += WEXITSTATUS(status);

  AS(0, files_that_wait());

  // An owner dies while its child keeps the socket open.
  int holding[2], told_id[2];
  require(pipe(holding) == 0 && pipe(told_id) == 0, "pipe");
  fflush(stdout);
  int parent = fork();
  if (parent == 0) {
    become(OWNER);
    int c = dial();
    ask(c, "create kind=served rights=r offset=0 bytes=4096 uid=0", &reader, 1), made(id);
    if (fork() == 0) {
      close(holding[1]);
      (void)!read(holding[0], &byte, 1);
      _exit(0);
    }
    (void)!write(told_id[1], id, 32);
    (void)!read(holding[0], &byte, 1);
    _exit(0);
  }
  require(read(told_id[0], id, 32) == 32, "the parent's id");
  snprintf(text, sizeof text, "read id=%s offset=0 bytes=1", id);
  ask(s, text, NULL, 0), require(begins("data"), answer);
  kill(parent, SIGKILL);
  waitpid(parent, NULL, 0);
  usleep(50000);
  check((ask(s, text, NULL, 0), is("refused reason=revoked")), "receiver", "a handle whose owner has died, though a child has its socket");
  close(holding[1]);

  // The owner dies: so do its handles.
  AS(RECEIVER, int c = dial(); snprintf(text, sizeof text, "read id=%s offset=0 bytes=3", served); ask(c, text, NULL, 0), require(begins("data"), answer));
  (void)!write(to[1], "x", 1);
  while (fgets(line, sizeof line, told)) printf("%s", line);
  waitpid(owner, &status, 0);
  require(WIFEXITED(status) && WEXITSTATUS(status) < 97, "the owner's part");
  attempts += WEXITSTATUS(status);
  usleep(50000);
  AS(RECEIVER, int c = dial(); snprintf(text, sizeof text, "read id=%s offset=0 bytes=3", served); check((ask(c, text, NULL, 0), is("refused reason=revoked")), "receiver", "a handle whose owner has died"));
  printf("%d attempts, %d not refused\n", attempts, failures);
  return failures != 0;
}
