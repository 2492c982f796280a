/* martlet_channel.h: a protocol stack's end of a Martlet channel, for C11 and C++11 programs on Linux.

   One file without dependencies but libc: copy it where you need it. Messages version 2, channel version 1.

   A program attaches to a NIC that `martlet run --share SOCKET` drives, or is started by `martlet attach`, which has
   connected it already. It gets an arena (its memory for packets) and a channel: for each queue four rings of 16-byte
   descriptors in shared memory.

     receive     host -> program   packets that came, in segments of the arena's receive part
     free        program -> host   those segments, given back one by one; none may be given back twice
     transmit    program -> host   packets to send: pieces in the transmit part, which is the program's to divide, or a
                                   received segment that the program still has (shared NICs: one piece a packet, on the queue it came from)
     completion  host -> program   tags of packets that have left: what they were made of is the program's again

   A packet is one or more descriptors; all but its last have MARTLET_MORE. Its first may be offload metadata
   (MARTLET_OFFLOAD) instead of a piece. All functions take and give whole packets. Several packets may be sent as one
   aggregate, a chain of at most 64 descriptors: the last of each packet but the last has MARTLET_MORE | MARTLET_AGGREGATE,
   the tag is the first descriptor's and is completed once, after the last packet; meanwhile no other may have it.

     struct martlet_instance nic;
     struct martlet_descriptor burst[64];
     if (martlet_attach(&nic, "/run/martlet.sock", "name=mine claims=ipv4:10.0.0.3") < 0) die(nic.reason);
     while (!martlet_closed(&nic)) {
       int count = martlet_receive(&nic, 0, burst, 64);      // at most 64 descriptors, whole packets
       for (int i = 0; i < count; i++) look_at(martlet_data(&nic, &burst[i]), burst[i].length);
       martlet_give_back(&nic, 0, burst, count);             // returns how many the ring had room for
       martlet_ring(&nic);                                   // wakes the host if it sleeps and there is news for it
       if (count == 0) martlet_sleep(&nic, -1);              // until there is something to do
     }
     puts(martlet_closed(&nic));
     martlet_detach(&nic);

   Applications' own memory can be sent from too. Its owner makes a handle for it at PATH.handles (`create`), the program
   sends command 6 with the handle's two halves over its command channel, and the answer's first two values are where the memory
   begins, in bytes from the arena's start, and how many bytes it has. This header leaves the command channel to others.

   Neither side trusts the other. What the host writes is copied once and checked; a host that breaks the rules ends the
   channel (martlet_closed says why), never the program. A program that does is closed by the host. One thread for each
   instance, or one for each queue where only one of them calls martlet_closed, martlet_sleep and martlet_detach. */
#ifndef MARTLET_CHANNEL_H
#define MARTLET_CHANNEL_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The layout: the header page, then for each queue a control page and four rings, each a multiple of a page. */
enum {
  MARTLET_MESSAGES_VERSION = 2,
  MARTLET_CHANNEL_MAGIC = 0x4c54524d,
  MARTLET_CHANNEL_VERSION = 1,
  MARTLET_PAGE = 4096,
  MARTLET_END_WORD = 64,          /* not 0: use the channel no more */
  MARTLET_END_REASON = 68,        /* why the host closed it: see martlet_closed */
  MARTLET_NEWS_WORD = 72,         /* changes when a message waits on the socket */
  MARTLET_RING_STRIDE = 128,      /* of the indices in a control page: producer's, consumer's 64 bytes behind */
  MARTLET_CONSUMER_INDEX = 64,
  MARTLET_HOST_SLEEPS = 512,
  MARTLET_INSTANCE_SLEEPS = 576,
  MARTLET_WANTS_AGGREGATES = 580, /* not 0: the program wants aggregates, see martlet_want_aggregates */
  MARTLET_MAXIMUM_QUEUES = 64,
  MARTLET_MAXIMUM_PIECES = 64,    /* descriptors of one packet, metadata included */
  MARTLET_UNIT = 1024             /* what martlet_descriptor.segment counts */
};
enum { MARTLET_RECEIVE = 0, MARTLET_TRANSMIT = 1, MARTLET_COMPLETION = 2, MARTLET_FREE = 3 };
enum { MARTLET_MORE = 1, MARTLET_OFFLOAD = 2, MARTLET_CHECKSUM_VALID = 4, MARTLET_AGGREGATE = 16 };
/* Places of the descriptors that come with the welcome; without commands, the host's eventfds begin at 4. The own
   doorbell is a socket: readable when the host or the supervisor rings, until it is read. */
enum { MARTLET_FD_ARENA = 0, MARTLET_FD_CHANNEL = 1, MARTLET_FD_COUNTERS = 2, MARTLET_FD_OWN_EVENT = 3,
       MARTLET_FD_COMMANDS = 4, MARTLET_FD_COMMAND_EVENT = 5, MARTLET_FD_HOST_EVENTS = 6 };

struct martlet_descriptor {
  uint32_t segment; /* where the segment begins, in units of 1024 bytes from the arena's start */
  uint32_t offset;  /* bytes from there to the data */
  uint32_t length;  /* bytes of data */
  uint16_t flags;
  uint16_t tag;     /* of what is sent: comes back with its completion */
};

static inline size_t martlet_ring_bytes(uint32_t slots) { return ((size_t)slots * 16 + MARTLET_PAGE - 1) / MARTLET_PAGE * MARTLET_PAGE; }
static inline size_t martlet_channel_bytes(uint32_t queues, uint32_t slots) { return MARTLET_PAGE + queues * (MARTLET_PAGE + 4 * martlet_ring_bytes(slots)); }
static inline size_t martlet_control_offset(uint32_t slots, uint32_t queue) { return martlet_channel_bytes(queue, slots); }
static inline size_t martlet_slots_offset(uint32_t slots, uint32_t queue, int ring) { return martlet_control_offset(slots, queue) + MARTLET_PAGE + (size_t)ring * martlet_ring_bytes(slots); }

/* One end of one ring. Private. */
struct martlet_ring {
  struct martlet_descriptor *slots;
  uint32_t *own, *peer; /* indices, which run free in 32 bits */
  uint32_t mask, next, seen;
};

struct martlet_queue {
  struct martlet_ring rings[4];
  uint32_t *host_sleeps, *instance_sleeps;
  int host_event;
  uint32_t told, completions;
};

/* All fields are for reading only. */
struct martlet_instance {
  uint32_t id, mtu, offloads, queue_count, slots;
  uint8_t mac[6];
  int is_shared;
  int socket;             /* readable when the supervisor has said something or is gone */
  int event;              /* readable when the host has news and the program said that it sleeps */
  uint8_t *arena;         /* [0, receive_bytes) receive part, [receive_bytes, arena_bytes) transmit part */
  size_t receive_bytes, arena_bytes;
  uint8_t *channel;
  size_t channel_size;
  uint32_t news;
  int is_closed;
  char reason[256];       /* why it was closed or could not be attached */
  struct martlet_queue queues[MARTLET_MAXIMUM_QUEUES];
};

static inline int martlet_close_for(struct martlet_instance *m, const char *reason) {
  if (!m->is_closed) snprintf(m->reason, sizeof m->reason, "%s", reason);
  m->is_closed = 1;
  return -1;
}

/* Rings. */

static inline uint32_t martlet_push(struct martlet_ring *r, const struct martlet_descriptor *burst, uint32_t count) {
  uint32_t room = r->mask + 1 - (r->next - r->seen);
  if (room < count) {
    uint32_t claimed = __atomic_load_n(r->peer, __ATOMIC_ACQUIRE);
    /* One that claims more than was written only hurts itself. */
    if (r->next - claimed <= r->mask + 1) r->seen = claimed;
    room = r->mask + 1 - (r->next - r->seen);
    if (count > room) count = room;
  }
  while (count > 0 && (burst[count - 1].flags & MARTLET_MORE)) count--;
  if (count == 0) return 0;
  for (uint32_t i = 0; i < count; i++) r->slots[(r->next + i) & r->mask] = burst[i];
  r->next += count;
  __atomic_store_n(r->own, r->next, __ATOMIC_RELEASE);
  return count;
}

/* Returns -1 where the producer's index makes no sense, -2 where a packet has no end. */
static inline int martlet_pop(struct martlet_ring *r, struct martlet_descriptor *burst, uint32_t capacity) {
  if (r->seen == r->next) {
    uint32_t claimed = __atomic_load_n(r->peer, __ATOMIC_ACQUIRE);
    if (claimed - r->next > r->mask + 1) return -1;
    r->seen = claimed;
  }
  uint32_t taken = r->seen - r->next, kept;
  if (taken > capacity) taken = capacity;
  for (uint32_t i = 0; i < taken; i++) burst[i] = r->slots[(r->next + i) & r->mask];
  /* Each slot has been read once: from here on only the copy is looked at. */
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  for (kept = taken; kept > 0 && (burst[kept - 1].flags & MARTLET_MORE); ) kept--;
  if (taken - kept >= MARTLET_MAXIMUM_PIECES) return -2;
  r->next += kept;
  if (kept > 0) __atomic_store_n(r->own, r->next, __ATOMIC_RELEASE);
  if (kept < taken) r->seen = r->next;
  return (int)kept;
}

static inline int martlet_taken(struct martlet_instance *m, int count) {
  if (count == -1) return martlet_close_for(m, "the host broke the channel's rules: an index jumped");
  if (count == -2) return martlet_close_for(m, "the host broke the channel's rules: a packet without end");
  return count;
}

/* Received packets: descriptors, at most `capacity` (64 or more, or a large packet is never taken). Returns how many, or
   -1 where the channel is closed. Every piece lies in the receive part, however wrong the host may be. */
static inline int martlet_receive(struct martlet_instance *m, uint32_t queue, struct martlet_descriptor *burst, uint32_t capacity) {
  if (m->is_closed) return -1;
  int count = martlet_taken(m, martlet_pop(&m->queues[queue].rings[MARTLET_RECEIVE], burst, capacity));
  for (int i = 0; i < count; i++) {
    uint64_t end = (uint64_t)burst[i].segment * MARTLET_UNIT + burst[i].offset + burst[i].length;
    if (!(burst[i].flags & MARTLET_OFFLOAD) && end > m->receive_bytes) return martlet_close_for(m, "the host broke the channel's rules: a packet outside the receive part");
  }
  return count;
}

/* Whether packets that come together shall come as aggregates; what is in the ring already stays as it is. */
static inline void martlet_want_aggregates(struct martlet_instance *m, uint32_t queue, int wanted) {
  uint8_t *control = m->channel + martlet_control_offset(m->slots, queue);
  __atomic_store_n((uint32_t *)(void *)(control + MARTLET_WANTS_AGGREGATES), wanted ? 1u : 0u, __ATOMIC_RELAXED);
}

/* The first byte of a piece. */
static inline uint8_t *martlet_data(const struct martlet_instance *m, const struct martlet_descriptor *piece) {
  return m->arena + (uint64_t)piece->segment * MARTLET_UNIT + piece->offset;
}

/* Gives segments back. Metadata is left out by itself, so that a received burst can be given back as it is. Returns how
   many descriptors of the burst were dealt with: the rest did not fit. */
static inline uint32_t martlet_give_back(struct martlet_instance *m, uint32_t queue, const struct martlet_descriptor *burst, int count) {
  struct martlet_ring *r = &m->queues[queue].rings[MARTLET_FREE];
  uint32_t done = 0;
  for (; (int)done < count; done++) {
    struct martlet_descriptor d = {burst[done].segment, 0, 0, 0, 0};
    if (!(burst[done].flags & MARTLET_OFFLOAD) && martlet_push(r, &d, 1) == 0) break;
  }
  return done;
}

/* Packets to send. Returns how many descriptors were taken, from the front: the rest did not fit. */
static inline uint32_t martlet_send(struct martlet_instance *m, uint32_t queue, const struct martlet_descriptor *burst, int count) {
  return count <= 0 ? 0 : martlet_push(&m->queues[queue].rings[MARTLET_TRANSMIT], burst, (uint32_t)count);
}

/* Packets that have left, by their tags. Returns how many, or -1 where the channel is closed. */
static inline int martlet_completions(struct martlet_instance *m, uint32_t queue, struct martlet_descriptor *burst, uint32_t capacity) {
  if (m->is_closed) return -1;
  return martlet_taken(m, martlet_pop(&m->queues[queue].rings[MARTLET_COMPLETION], burst, capacity));
}

/* Sleep and wake. */

/* Wakes the host's threads that sleep and have news. After sending, giving back or taking completions. */
static inline void martlet_ring(struct martlet_instance *m) {
  for (uint32_t i = 0; i < m->queue_count; i++) {
    struct martlet_queue *q = &m->queues[i];
    struct martlet_ring *done = &q->rings[MARTLET_COMPLETION];
    uint32_t published = q->rings[MARTLET_TRANSMIT].next + q->rings[MARTLET_FREE].next;
    int news = published != q->told;
    if (!news && done->next == q->completions) continue;
    /* Our indices, then the host's words: without the fence both could miss each other. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    q->told = published;
    if (done->next != q->completions) {
      /* A completion ring that was full has room again. */
      if (__atomic_load_n(done->peer, __ATOMIC_RELAXED) - q->completions > done->mask) news = 1;
      q->completions = done->next;
    }
    if (!news) continue;
    if (__atomic_load_n(q->host_sleeps, __ATOMIC_RELAXED) == 0) continue;
    __atomic_store_n(q->host_sleeps, 0u, __ATOMIC_RELAXED);
    struct pollfd event = {q->host_event, POLLOUT, 0};
    uint64_t one = 1;
    if (poll(&event, 1, 0) == 1 && (event.revents & POLLOUT) && write(q->host_event, &one, 8) < 0) {}
  }
}

/* Hears what the supervisor has said. */
static inline void martlet_hear(struct martlet_instance *m);

/* Sleeps until packets or completions come, the supervisor says something, or milliseconds have passed (-1: no limit).
   Returns at once where something has come already. The program must have taken all that there was before. */
static inline void martlet_sleep(struct martlet_instance *m, int milliseconds) {
  int may_sleep = !m->is_closed;
  for (uint32_t i = 0; i < m->queue_count; i++) {
    struct martlet_queue *q = &m->queues[i];
    __atomic_store_n(q->instance_sleeps, 1u, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (int ring = MARTLET_RECEIVE; ring <= MARTLET_COMPLETION; ring += MARTLET_COMPLETION - MARTLET_RECEIVE)
      if (__atomic_load_n(q->rings[ring].peer, __ATOMIC_ACQUIRE) != q->rings[ring].next) may_sleep = 0;
  }
  struct pollfd events[2] = {{m->event, POLLIN, 0}, {m->socket, POLLIN, 0}};
  char rings[512];
  if (may_sleep && poll(events, 2, milliseconds) > 0) {
    if (events[1].revents) martlet_hear(m);
    if (events[0].revents && recv(m->event, rings, sizeof rings, MSG_DONTWAIT) == 0) martlet_close_for(m, "the driver host has gone");
  }
  for (uint32_t i = 0; i < m->queue_count; i++) __atomic_store_n(m->queues[i].instance_sleeps, 0u, __ATOMIC_RELAXED);
}

/* Why the channel must not be used any more; NULL while it goes on. No system call unless there is news. */
static inline const char *martlet_closed(struct martlet_instance *m) {
  static const char *const reasons[] = {"the supervisor asks the program to end", "an index jumped", "a packet had too many pieces", "a segment was not the program's", "a piece was outside the program's memory", "offload metadata made no sense", "its memory has gone", "the supervisor has detached it", "an aggregate made no sense"};
  if (!m->is_closed && __atomic_load_n((uint32_t *)(void *)(m->channel + MARTLET_NEWS_WORD), __ATOMIC_ACQUIRE) != m->news) martlet_hear(m);
  if (!m->is_closed && __atomic_load_n((uint32_t *)(void *)(m->channel + MARTLET_END_WORD), __ATOMIC_ACQUIRE)) {
    uint32_t reason = __atomic_load_n((uint32_t *)(void *)(m->channel + MARTLET_END_REASON), __ATOMIC_RELAXED);
    if (reason == 0) martlet_hear(m); /* what the supervisor says is more */
    martlet_close_for(m, reason < sizeof reasons / sizeof *reasons ? reasons[reason] : "for a reason that this program does not know");
  }
  return m->is_closed ? m->reason : NULL;
}

/* Messages. */

/* The next message with its descriptors, at most 64. Returns its length, 0 where there is none, -1 where the peer has gone. */
static inline int martlet_message(int fd, char *text, size_t capacity, int *descriptors, int *count, int milliseconds) {
  union { struct cmsghdr header; char bytes[CMSG_SPACE(64 * sizeof(int))]; } control;
  struct pollfd readable = {fd, POLLIN, 0};
  struct iovec vector;
  struct msghdr message;
  *count = 0;
  if (poll(&readable, 1, milliseconds) <= 0) return 0;
  vector.iov_base = text;
  vector.iov_len = capacity - 1;
  memset(&message, 0, sizeof message);
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (length <= 0) return -1;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(descriptors, CMSG_DATA(c), (size_t)n * sizeof(int));
    *count = n;
  }
  text[length] = 0;
  return (int)length;
}

static inline int martlet_is(const char *text, const char *word) {
  size_t n = strlen(word);
  return strncmp(text, word, n) == 0 && (text[n] == ' ' || text[n] == 0);
}

/* The value of a field, with all that follows; NULL where there is none. */
static inline const char *martlet_field(const char *text, const char *name) {
  size_t n = strlen(name);
  for (const char *at = strchr(text, ' '); at; at = strchr(at + 1, ' '))
    if (strncmp(at + 1, name, n) == 0 && at[n + 1] == '=') return at + n + 2;
  return NULL;
}

/* A field's number; ~0 where it is none or out of range. */
static inline uint64_t martlet_number(const char *text, const char *name, uint64_t least, uint64_t most) {
  const char *value = martlet_field(text, name);
  char *end;
  if (!value || *value < '0' || *value > '9') return ~(uint64_t)0;
  errno = 0;
  unsigned long long number = strtoull(value, &end, 10);
  return errno || (*end != ' ' && *end != 0) || number < least || number > most ? ~(uint64_t)0 : number;
}

static inline void martlet_hear(struct martlet_instance *m) {
  char text[1024], answer[64];
  int descriptors[64], count, length = 1;
  m->news = __atomic_load_n((uint32_t *)(void *)(m->channel + MARTLET_NEWS_WORD), __ATOMIC_ACQUIRE);
  for (int i = 0; i < 16 && length > 0; i++) {
    length = martlet_message(m->socket, text, sizeof text, descriptors, &count, 0);
    /* More memory, which this program has no use for. */
    while (count > 0) close(descriptors[--count]);
    if (length < 0) martlet_close_for(m, "the supervisor has gone");
    if (length <= 0) return;
    if (martlet_is(text, "stop")) martlet_close_for(m, "the supervisor asks the program to end");
    if (martlet_is(text, "closed")) martlet_close_for(m, martlet_field(text, "reason") ? martlet_field(text, "reason") : "for no reason");
    if (martlet_is(text, "shrink") && martlet_number(text, "bytes", m->arena_bytes, (uint64_t)1 << 42) != ~(uint64_t)0) {
      int n = snprintf(answer, sizeof answer, "shrunk bytes=%llu", (unsigned long long)martlet_number(text, "bytes", 0, (uint64_t)1 << 42));
      if (send(m->socket, answer, (size_t)n, MSG_NOSIGNAL) < 0) {}
    }
  }
}

/* Attach and detach. */

/* Maps memory that nobody can shrink; NULL where it is none, or too small. */
static inline uint8_t *martlet_map(int fd, size_t bytes) {
  const int get_seals = 1034, seal_shrink = 2; /* F_GET_SEALS, F_SEAL_SHRINK */
  struct stat status;
  int seals = fcntl(fd, get_seals);
  if (seals < 0 || !(seals & seal_shrink) || fstat(fd, &status) < 0 || (uint64_t)status.st_size < bytes) return NULL;
  void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return address == MAP_FAILED ? NULL : (uint8_t *)address;
}

static inline void martlet_detach(struct martlet_instance *m) {
  if (m->arena) munmap(m->arena, m->arena_bytes);
  if (m->channel) munmap(m->channel, m->channel_size);
  for (uint32_t i = 0; i < m->queue_count; i++) if (m->queues[i].host_event >= 0) close(m->queues[i].host_event);
  if (m->event >= 0) close(m->event);
  if (m->socket >= 0) close(m->socket);
  m->arena = m->channel = NULL;
  m->queue_count = 0;
  m->event = m->socket = -1;
  m->is_closed = 1;
}

static inline int martlet_refuse(struct martlet_instance *m, int *descriptors, int count, const char *reason) {
  while (count > 0) close(descriptors[--count]);
  martlet_close_for(m, reason);
  martlet_detach(m);
  return -1;
}

/* Takes the place that somebody else has asked for over a connected socket, as `martlet attach` has for the program
   that it starts: descriptor 3, which the variable MARTLET_SOCKET names too. Returns 0, or -1 with the reason. The
   socket is the instance's from now on. */
static inline int martlet_adopt(struct martlet_instance *m, int socket) {
  static const char *const bounds[] = {"id", "mtu", "offloads", "queues", "slots", "receive-bytes", "arena-bytes"};
  static const uint64_t least[] = {0, 68, 0, 1, 64, MARTLET_PAGE, MARTLET_PAGE}, most[] = {~0u, 65535, ~0u, MARTLET_MAXIMUM_QUEUES, 65536, (uint64_t)1 << 42, (uint64_t)1 << 42};
  char text[16385];
  int descriptors[64], count;
  unsigned mac[6];
  uint64_t numbers[7];
  memset(m, 0, sizeof *m);
  m->socket = socket;
  m->event = -1;
  errno = 0;
  int length = martlet_message(socket, text, sizeof text, descriptors, &count, 10000);
  if (length < 0) return martlet_refuse(m, descriptors, count, "the supervisor has closed the connection");
  if (length == 0) return martlet_refuse(m, descriptors, count, errno == EINTR ? "a signal came before the supervisor's answer" : "the supervisor has not answered in 10 seconds");
  if (martlet_is(text, "refused")) return martlet_refuse(m, descriptors, count, martlet_field(text, "reason") ? martlet_field(text, "reason") : "for no reason");
  if (!martlet_is(text, "welcome")) return martlet_refuse(m, descriptors, count, "the supervisor's answer makes no sense");
  if (martlet_number(text, "version", MARTLET_MESSAGES_VERSION, MARTLET_MESSAGES_VERSION) == ~(uint64_t)0) return martlet_refuse(m, descriptors, count, "the supervisor speaks another version");
  for (int i = 0; i < 7; i++) {
    numbers[i] = martlet_number(text, bounds[i], least[i], most[i]);
    if (numbers[i] == ~(uint64_t)0) return martlet_refuse(m, descriptors, count, bounds[i]);
  }
  uint64_t channel_queues = martlet_field(text, "channel-queues") ? martlet_number(text, "channel-queues", numbers[3], MARTLET_MAXIMUM_QUEUES) : numbers[3];
  const char *address = martlet_field(text, "mac"), *mode = martlet_field(text, "mode"), *commands = martlet_field(text, "commands");
  int first = commands && martlet_is(commands, "yes") ? MARTLET_FD_HOST_EVENTS : MARTLET_FD_COMMANDS;
  if (channel_queues == ~(uint64_t)0 || (numbers[4] & (numbers[4] - 1)) || numbers[5] >= numbers[6] || !mode || !address || sscanf(address, "%2x:%2x:%2x:%2x:%2x:%2x", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) return martlet_refuse(m, descriptors, count, "the supervisor's welcome makes no sense");
  if (count != first + (int)numbers[3]) return martlet_refuse(m, descriptors, count, "the supervisor's welcome came with the wrong descriptors");
  m->id = (uint32_t)numbers[0];
  m->mtu = (uint32_t)numbers[1];
  m->offloads = (uint32_t)numbers[2];
  m->slots = (uint32_t)numbers[4];
  m->receive_bytes = (size_t)numbers[5];
  m->arena_bytes = (size_t)numbers[6];
  m->channel_size = martlet_channel_bytes((uint32_t)channel_queues, m->slots);
  m->is_shared = martlet_is(mode, "shared");
  for (int i = 0; i < 6; i++) m->mac[i] = (uint8_t)mac[i];
  m->arena = martlet_map(descriptors[MARTLET_FD_ARENA], m->arena_bytes);
  m->channel = martlet_map(descriptors[MARTLET_FD_CHANNEL], m->channel_size);
  if (!m->arena || !m->channel) return martlet_refuse(m, descriptors, count, "the supervisor's memory is too small, not sealed, or cannot be mapped");
  const uint32_t *header = (const uint32_t *)(const void *)m->channel;
  if (header[0] != MARTLET_CHANNEL_MAGIC || header[1] != MARTLET_CHANNEL_VERSION || header[2] != channel_queues || header[3] != m->slots) return martlet_refuse(m, descriptors, count, "the channel is of another version or another size");
  m->queue_count = (uint32_t)numbers[3];
  m->event = descriptors[MARTLET_FD_OWN_EVENT];
  for (uint32_t q = 0; q < m->queue_count; q++) {
    uint8_t *control = m->channel + martlet_control_offset(m->slots, q);
    m->queues[q].host_event = descriptors[first + (int)q];
    m->queues[q].host_sleeps = (uint32_t *)(void *)(control + MARTLET_HOST_SLEEPS);
    m->queues[q].instance_sleeps = (uint32_t *)(void *)(control + MARTLET_INSTANCE_SLEEPS);
    for (int ring = 0; ring < 4; ring++) {
      struct martlet_ring *r = &m->queues[q].rings[ring];
      uint32_t *producer = (uint32_t *)(void *)(control + ring * MARTLET_RING_STRIDE), *consumer = (uint32_t *)(void *)(control + ring * MARTLET_RING_STRIDE + MARTLET_CONSUMER_INDEX);
      int produces = ring == MARTLET_TRANSMIT || ring == MARTLET_FREE;
      r->slots = (struct martlet_descriptor *)(void *)(m->channel + martlet_slots_offset(m->slots, q, ring));
      r->own = produces ? producer : consumer;
      r->peer = produces ? consumer : producer;
      r->mask = m->slots - 1;
    }
  }
  for (int i = 0; i < first; i++) if (i != MARTLET_FD_OWN_EVENT) close(descriptors[i]);
  if (send(socket, "ready", 5, MSG_NOSIGNAL) < 0) {}
  return 0;
}

/* Attaches to the NIC behind a socket. `request` is fields of the attach message, parted by spaces: name=NAME, 1 to 32
   letters, digits, '-', '_' and '.', and as needed token=HEX, claims=CLAIM,CLAIM (ipv4:10.0.0.3, ipv6:fe80::1/tcp/80,
   group:224.0.0.251, rest), memory=MIB. Returns 0, or -1 with the reason in the instance, which then holds nothing. */
static inline int martlet_attach(struct martlet_instance *m, const char *path, const char *request) {
  struct sockaddr_un address;
  char text[8192];
  memset(m, 0, sizeof *m);
  memset(&address, 0, sizeof address);
  m->event = -1;
  m->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  address.sun_family = AF_UNIX;
  int length = snprintf(text, sizeof text, "attach version=%d %s", MARTLET_MESSAGES_VERSION, request);
  if (strlen(path) >= sizeof address.sun_path || length < 0 || (size_t)length >= sizeof text) return martlet_refuse(m, NULL, 0, "the socket's path or the request is too long");
  strcpy(address.sun_path, path);
  if (connect(m->socket, (struct sockaddr *)&address, sizeof address) < 0 || send(m->socket, text, (size_t)length, MSG_NOSIGNAL) < 0) return martlet_refuse(m, NULL, 0, strerror(errno));
  return martlet_adopt(m, m->socket);
}

#ifdef __cplusplus
}
#endif
#endif
