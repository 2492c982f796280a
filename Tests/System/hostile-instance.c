/* An instance that breaks the rules of its channel, one by one (Tests/System/hostile-instance.sh):

     hostile-instance SOCKET ADDRESS CASE [NEIGHBOUR]

   Prints how the case ended: `closed: REASON`, `refused: REASON`, or `alive` where the host goes on with it. */
#define _GNU_SOURCE
#include <martlet_channel.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

static struct martlet_instance nic;
static const char *path;
static uint8_t own[4], neighbour[4];
static volatile int stopping;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Lets the host look, for so long or until it closes the channel. */
static int is_closed_within(double seconds) {
  double end = now() + seconds;
  while (now() < end) {
    for (uint32_t q = 0; q < nic.queue_count; q++) {
      uint64_t one = 1;
      if (write(nic.queues[q].host_event, &one, 8) < 0) {}
    }
    usleep(1000);
    martlet_hear(&nic);
    if (martlet_closed(&nic)) return 1;
  }
  return 0;
}

static void finish(double seconds) {
  if (is_closed_within(seconds)) printf("closed: %s\n", nic.reason);
  else puts("alive");
  fflush(stdout);
  _exit(0);
}

static struct martlet_ring *ring(int number) { return &nic.queues[0].rings[number]; }

static void push(int number, struct martlet_descriptor d) {
  struct martlet_ring *r = ring(number);
  r->slots[r->next & r->mask] = d;
  r->next++;
  __atomic_store_n(r->own, r->next, __ATOMIC_RELEASE);
}

static struct martlet_descriptor piece(uint32_t segment, uint32_t offset, uint32_t length, uint16_t flags) {
  struct martlet_descriptor d = {segment, offset, length, flags, 7};
  return d;
}

/* A frame that may be sent, at a unit of the transmit part: UDP from `source`. */
static uint32_t frame(uint32_t unit, const uint8_t *source, uint32_t length) {
  uint32_t segment = (uint32_t)(nic.receive_bytes / MARTLET_UNIT) + unit;
  uint8_t *f = nic.arena + (size_t)segment * MARTLET_UNIT;
  memset(f, 0, length);
  memset(f, 0xff, 6);
  memcpy(f + 6, nic.mac, 6);
  f[12] = 8;
  f[14] = 0x45;
  f[16] = (uint8_t)((length - 14) >> 8);
  f[17] = (uint8_t)(length - 14);
  f[22] = 64;
  f[23] = 17;
  memcpy(f + 26, source, 4);
  f[30] = 10, f[33] = 1;
  f[39] = (uint8_t)(length - 34);
  return segment;
}

/* A received piece: somebody asks for our address all the time. */
static struct martlet_descriptor received(void) {
  struct martlet_descriptor burst[64];
  double end = now() + 5;
  while (now() < end) {
    int count = martlet_receive(&nic, 0, burst, 64);
    for (int i = 0; i < count; i++) if (!(burst[i].flags & MARTLET_OFFLOAD)) return burst[i];
    martlet_sleep(&nic, 100);
  }
  puts("nothing came");
  exit(1);
}

static void *scribble_on_slots(void *unused) {
  for (uint32_t i = 0; !stopping; i++) {
    struct martlet_descriptor *slot = &ring(MARTLET_TRANSMIT)->slots[i & ring(MARTLET_TRANSMIT)->mask];
    *(volatile uint32_t *)&slot->segment = i * 2654435761u;
    *(volatile uint32_t *)&slot->length = i;
    *(volatile uint32_t *)&slot->length = 60;
  }
  return unused;
}

static void *scribble_on_payload(void *unused) {
  uint8_t *part = nic.arena + nic.receive_bytes;
  for (uint32_t i = 0; !stopping; i++) ((volatile uint8_t *)part)[(i * 97) % 4096] = (uint8_t)i;
  return unused;
}

static void *write_for_ever(void *event) {
  uint64_t most = 0xfffffffffffffffe;
  fcntl(*(int *)event, F_SETFL, 0);
  while (write(*(int *)event, &most, 8) == 8) {}
  return NULL;
}

/* Descriptors that nobody has asked for: one more kind in each message. */
static void send_descriptors(int socket, const char *text) {
  int listening = socket, kinds[3] = {memfd_create("x", 0), open("/dev/null", O_RDWR), dup(listening)};
  union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof kinds)]; } control;
  struct iovec vector = {(void *)(uintptr_t)text, strlen(text)};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(sizeof kinds);
  memcpy(CMSG_DATA(&control.header), kinds, sizeof kinds);
  sendmsg(socket, &message, MSG_NOSIGNAL);
}

static int raw_connection(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  if (connect(s, (struct sockaddr *)&address, sizeof address) < 0) exit(1);
  return s;
}

static void print_answer(int socket) {
  char text[1024];
  struct pollfd readable = {socket, POLLIN, 0};
  ssize_t length = poll(&readable, 1, 8000) > 0 ? recv(socket, text, sizeof text - 1, 0) : -1;
  text[length > 0 ? length : 0] = 0;
  printf("%s\n", text);
  exit(0);
}

/* Cases without a channel. */
static void play_without_channel(const char *what, const char *address) {
  char text[256];
  int s;
  if (!strcmp(what, "S22-silent")) print_answer(raw_connection());
  if (!strcmp(what, "S22-not-ready")) {
    s = raw_connection();
    snprintf(text, sizeof text, "attach version=2 name=hostile claims=ipv4:%s", address);
    send(s, text, strlen(text), 0);
    recv(s, text, sizeof text, 0);
    print_answer(s);
  }
  if (!strcmp(what, "S25-version")) {
    s = raw_connection();
    send(s, "attach version=1 name=x", 23, 0);
    print_answer(s);
  }
  if (!strcmp(what, "S25-descriptors")) {
    s = raw_connection();
    send_descriptors(s, "attach version=2 name=x");
    print_answer(s);
  }
}

static void play(const char *what) {
  const uint32_t most = 0xffffffff, end = (uint32_t)(nic.arena_bytes / MARTLET_UNIT), part = (uint32_t)(nic.receive_bytes / MARTLET_UNIT);
  struct martlet_ring *out = ring(MARTLET_TRANSMIT);
  pthread_t thread;
#define CASE(name) else if (!strcmp(what, name))
  if (!strcmp(what, "S1")) __atomic_store_n(out->own, out->next + out->mask + 6, __ATOMIC_RELEASE);
  CASE("S2") __atomic_store_n(out->own, out->next - 1, __ATOMIC_RELEASE);
  CASE("S2-free") __atomic_store_n(ring(MARTLET_FREE)->own, 0x80000000u, __ATOMIC_RELEASE);
  CASE("S4") {
    __atomic_store_n(ring(MARTLET_RECEIVE)->own, 0x7fffffffu, __ATOMIC_RELEASE);
    __atomic_store_n(ring(MARTLET_COMPLETION)->own, most, __ATOMIC_RELEASE);
    for (int i = 0; i < 100; i++) push(MARTLET_TRANSMIT, piece(frame(0, own, 60), 0, 60, 0));
    finish(0.5);
  }
  CASE("S5") push(MARTLET_TRANSMIT, piece(end, 0, 60, 0));
  CASE("S6") push(MARTLET_TRANSMIT, piece(most, most, most, 0));
  CASE("S7") push(MARTLET_TRANSMIT, piece(part, 0, 0, 0));
  CASE("S8") push(MARTLET_TRANSMIT, piece(end - 1, 1000, 60, 0));
  CASE("S9") push(MARTLET_TRANSMIT, piece(received().segment + 1, 0, 60, 0));
  CASE("S10") {
    struct martlet_descriptor d = received();
    push(MARTLET_FREE, piece(d.segment, 0, 0, 0));
    push(MARTLET_FREE, piece(d.segment, 0, 0, 0));
  }
  CASE("S11") {
    struct martlet_descriptor d = received();
    memcpy(martlet_data(&nic, &d), nic.arena + (size_t)frame(0, own, 60) * MARTLET_UNIT, 60);
    for (int i = 0; i < 8; i++) push(MARTLET_TRANSMIT, piece(d.segment, d.offset, 60, 0));
  }
  CASE("S11-free") {
    struct martlet_descriptor d = received();
    memcpy(martlet_data(&nic, &d), nic.arena + (size_t)frame(0, own, 60) * MARTLET_UNIT, 60);
    push(MARTLET_FREE, piece(d.segment, 0, 0, 0));
    push(MARTLET_TRANSMIT, piece(d.segment, d.offset, 60, 0));
  }
  CASE("S12") push(MARTLET_FREE, piece(end + 64, 0, 0, 0));
  CASE("S13") push(MARTLET_FREE, piece(part - 2, 0, 0, 0));
  CASE("S14") {
    struct martlet_descriptor d = received();
    push(MARTLET_FREE, piece(d.segment, 0, 0, 0));
    is_closed_within(0.1);
    push(MARTLET_FREE, piece(d.segment, 0, 0, 0));
  }
  CASE("S15") push(MARTLET_FREE, piece(most, 0, 0, 0));
  CASE("S16") {
    pthread_create(&thread, NULL, scribble_on_slots, NULL);
    uint32_t segment = frame(0, own, 60);
    for (int i = 0; i < 200000 && !martlet_closed(&nic); i++) push(MARTLET_TRANSMIT, piece(segment, 0, 60, 0));
  }
  CASE("S17") {
    pthread_create(&thread, NULL, scribble_on_payload, NULL);
    struct martlet_descriptor burst[64];
    for (double until = now() + 0.5; now() < until;) {
      struct martlet_descriptor d = piece(frame(0, own, 1000), 0, 1000, 0);
      martlet_send(&nic, 0, &d, 1);
      martlet_ring(&nic);
      martlet_completions(&nic, 0, burst, 64);
    }
    finish(0.1);
  }
  CASE("S18") {
    for (int i = 0; i < 250; i++) push(MARTLET_TRANSMIT, piece(frame(0, own, 1000), 0, 1000, 0));
    puts("gone");
    fflush(stdout);
    _exit(0);
  }
  CASE("S19") {
    received();
    for (int i = 0; i < 250; i++) push(MARTLET_TRANSMIT, piece(frame(0, own, 1000), 0, 1000, 0));
    puts("killed");
    fflush(stdout);
    kill(getpid(), SIGKILL);
  }
  CASE("S20") finish(1);
  CASE("S21") for (int i = 0; i < 1000; i++) send(nic.socket, "ready", 5, MSG_NOSIGNAL | MSG_DONTWAIT);
  CASE("S21-doorbells") {
    for (double until = now() + 1; now() < until;) {
      uint64_t one = 1;
      for (uint32_t q = 0; q < nic.queue_count; q++) if (write(nic.queues[q].host_event, &one, 8) < 0) {}
    }
    finish(0.1);
  }
  CASE("doorbells-that-block") {
    /* O_NONBLOCK away, the way to the host full, own doorbell never read and always asked for. */
    pthread_t writers[MARTLET_MAXIMUM_QUEUES];
    fcntl(nic.event, F_SETFL, 0);
    for (uint32_t q = 0; q < nic.queue_count; q++) pthread_create(&writers[q], NULL, write_for_ever, &nic.queues[q].host_event);
    for (double until = now() + 1.5; now() < until;) {
      for (uint32_t q = 0; q < nic.queue_count; q++) __atomic_store_n(nic.queues[q].instance_sleeps, 1u, __ATOMIC_SEQ_CST);
      struct martlet_descriptor d = piece(frame(0, own, 60), 0, 60, 0), burst[64];
      martlet_send(&nic, 0, &d, 1);
      martlet_completions(&nic, 0, burst, 64);
    }
    puts(martlet_closed(&nic) ? nic.reason : "alive");
    fflush(stdout);
    _exit(0);
  }
  CASE("doorbells-stolen") {
    /* Takes every wake-up that it can see, and closes its own. */
    shutdown(nic.event, SHUT_RDWR);
    for (double until = now() + 1; now() < until;) {
      uint64_t value;
      for (uint32_t q = 0; q < nic.queue_count; q++) if (read(nic.queues[q].host_event, &value, 8) < 0) {}
    }
    finish(0.1);
  }
  CASE("flood") {
    /* All that it may do, as fast as it can, until it is killed: packets of 63 pieces, packets that are refused, and
       doorbells; what comes for it stays where it is. */
    struct martlet_descriptor burst[64];
    for (uint32_t round = 0; !martlet_closed(&nic); round++) {
      uint32_t segment = frame(0, round & 1 ? own : neighbour, 63 * 16);
      for (uint32_t i = 0; i < 63; i++) burst[i] = piece(segment, i * 16, 16, i < 62 ? MARTLET_MORE : 0);
      while (martlet_send(&nic, 0, burst, 63) == 63) {}
      uint64_t one = 1;
      for (uint32_t q = 0; q < nic.queue_count; q++) if (write(nic.queues[q].host_event, &one, 8) < 0) {}
      while (martlet_completions(&nic, 0, burst, 64) > 0) {}
    }
  }
  CASE("S24") puts("both have it");
  CASE("S25-late") send_descriptors(nic.socket, "ready");
  CASE("S26") {
    for (int i = 0; i < 64; i += 4) *(volatile uint32_t *)(void *)(nic.channel + i) = most;
    for (int i = 0; i < 10; i++) push(MARTLET_TRANSMIT, piece(frame(0, own, 60), 0, 60, 0));
    finish(0.5);
  }
  CASE("S27") {
    memset(ring(MARTLET_RECEIVE)->slots, 0xff, (size_t)nic.slots * 16);
    memset(ring(MARTLET_COMPLETION)->slots, 0xff, (size_t)nic.slots * 16);
    memset(nic.arena, 0xff, nic.receive_bytes);
    finish(0.5);
  }
  CASE("S29") for (int i = 0; i < 200; i++) push(MARTLET_TRANSMIT, piece(part, 0, 60, MARTLET_MORE));
  CASE("S30") {
    for (int i = 0; i < 100; i++) push(MARTLET_TRANSMIT, piece(frame(0, neighbour, 60), 0, 60, 0));
    finish(0.5);
  }
  CASE("offload") {
    push(MARTLET_TRANSMIT, piece(most, most, most, MARTLET_MORE | MARTLET_OFFLOAD));
    push(MARTLET_TRANSMIT, piece(frame(0, own, 60), 0, 60, 0));
  }
  CASE("garbage") {
    srand(1);
    for (uint32_t i = 0; i <= out->mask; i++) for (int j = 0; j < 16; j++) ((uint8_t *)&out->slots[i])[j] = (uint8_t)rand();
    __atomic_store_n(out->own, out->next + out->mask, __ATOMIC_RELEASE);
  }
  else {
    puts("no such case");
    exit(1);
  }
  finish(3);
}

/* S23: the memory under the host. The header has closed the descriptors: this attaches with its own eyes. */
static void play_with_memory(const char *what, const char *address) {
  char text[1024];
  int descriptors[64], count, s = raw_connection();
  snprintf(text, sizeof text, "attach version=2 name=hostile claims=ipv4:%s", address);
  send(s, text, strlen(text), 0);
  if (martlet_message(s, text, sizeof text, descriptors, &count, 5000) <= 0 || count < 5) {
    puts("no welcome");
    exit(1);
  }
  send(s, "ready", 5, 0);
  struct stat arena, channel;
  fstat(descriptors[0], &arena);
  fstat(descriptors[1], &channel);
  int truncated = ftruncate(descriptors[0], 0) == 0 || ftruncate(descriptors[1], 4096) == 0;
  double end = now() + 1;
  while (now() < end) {
    int which = strcmp(what, "S23-arena") ? 1 : 0;
    if (fallocate(descriptors[which], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, which ? channel.st_size : arena.st_size) < 0) {
      perror("punch");
      exit(1);
    }
    usleep(100);
  }
  puts(truncated ? "truncated" : "punched");
  exit(0);
}

int main(int argc, char **argv) {
  char request[256];
  if (argc < 4) return 2;
  path = argv[1];
  inet_pton(AF_INET, argv[2], own);
  if (argc > 4) inet_pton(AF_INET, argv[4], neighbour);
  signal(SIGPIPE, SIG_IGN);
  play_without_channel(argv[3], argv[2]);
  if (!strncmp(argv[3], "S23", 3)) play_with_memory(argv[3], argv[2]);
  const char *claimed = !strcmp(argv[3], "S24") ? argv[4] : argv[2];
  snprintf(request, sizeof request, "name=hostile claims=ipv4:%s", claimed);
  if (martlet_attach(&nic, path, request) < 0) {
    printf("refused: %s\n", nic.reason);
    return 0;
  }
  play(argv[3]);
}
