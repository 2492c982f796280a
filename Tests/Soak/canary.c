/* A checking instance for the soak: answers probes in place, floods if asked to, and looks at every byte that it can see.

     canary SOCKET NUMBER SECRET COUNTERS ADDRESS CLAIM FIRST-PORT LAST-PORT MODE

   Its memory for sending, and each received segment before it is given back, is full of its canary: 8 bytes that nobody else
   has. In a received segment only the packet may differ from that, or from the 0 of memory that has never been used; each
   packet has to be for its own address and ports, and each probe's every byte right. What is found is counted in the file
   COUNTERS, which stays when the process is killed. MODE: echo or flood. */
#include "canary.h"

#include <time.h>

enum { BURST = 64, QUEUES = 8, TAGS = 256, SEGMENT = 2048 };

static struct martlet_instance nic;
static struct counters *counts;
static struct identity own;
static uint8_t far_mac[6];
static int knows_far_mac;
static volatile sig_atomic_t must_end;

/* What is under way on a queue, by tag: a received segment, or a piece of the memory for sending with so many bytes. */
struct queue {
  struct { uint32_t segment, length; uint8_t is_busy, is_received; } sent[TAGS];
  uint16_t free_tags[TAGS];
  int free_count;
};
static struct queue queues[QUEUES];
static uint32_t flood_sequence;

static void note(uint64_t *count, const char *what, const uint8_t *bytes, uint32_t length) {
  if ((*count)++ == 0) describe(counts->error, sizeof counts->error, what, bytes, length);
}

static uint8_t *place(uint32_t queue, int tag) { return nic.arena + nic.receive_bytes + (queue * TAGS + (size_t)tag) * SEGMENT; }
static uint32_t unit(uint32_t queue, int tag) { return (uint32_t)((place(queue, tag) - nic.arena) / MARTLET_UNIT); }

/* The host has to take what is given back sooner or later. */
static void give_back(uint32_t queue, uint32_t segment) {
  struct martlet_descriptor piece = {segment, 0, 0, 0, 0};
  fill_canary(&own, nic.arena + (size_t)segment * MARTLET_UNIT, SEGMENT);
  while (martlet_give_back(&nic, queue, &piece, 1) == 0 && !martlet_closed(&nic) && !must_end) {
    martlet_ring(&nic);
    martlet_sleep(&nic, 1);
  }
  counts->held--;
}

/* The first free tag's packet: a received segment, or so many bytes from the tag's place. */
static int send_packet(uint32_t queue, const struct martlet_descriptor *pieces, int count, int is_received, uint32_t length) {
  struct queue *q = &queues[queue];
  uint16_t tag = pieces->tag;
  if (martlet_send(&nic, queue, pieces, count) != (uint32_t)count) return 0;
  q->free_count--;
  q->sent[tag].segment = pieces->segment;
  q->sent[tag].length = length;
  q->sent[tag].is_received = (uint8_t)is_received;
  q->sent[tag].is_busy = 1;
  counts->sent++;
  return 1;
}

/* The answer to a probe or an ARP request, from where it lies; 0 where it cannot go. */
static int send_received(uint32_t queue, const struct martlet_descriptor *piece) {
  struct martlet_descriptor answer = *piece;
  if (queues[queue].free_count == 0) return 0;
  answer.flags = 0;
  answer.tag = queues[queue].free_tags[queues[queue].free_count - 1];
  return send_packet(queue, &answer, 1, 1, 0);
}

static void learn(const uint8_t *frame) {
  memcpy(far_mac, frame + 6, 6);
  knows_far_mac = 1;
}

/* Looks at all of a segment, and answers what wants an answer. */
static void take(uint32_t queue, const struct martlet_descriptor *piece, int is_whole) {
  uint8_t *segment = nic.arena + (size_t)piece->segment * MARTLET_UNIT;
  uint8_t *frame = segment + piece->offset;
  uint32_t end = piece->offset + piece->length;
  counts->held++;
  counts->packets++;
  counts->bytes += SEGMENT;
  if (end > SEGMENT || !is_canary_or_zero(&own, segment, 0, piece->offset) ||
      !is_canary_or_zero(&own, segment, end, SEGMENT)) {
    note(&counts->foreign, "bytes beside a packet", segment, SEGMENT);
  }
  if (has_other_canary(&own, segment, SEGMENT)) note(&counts->foreign, "another's canary", segment, SEGMENT);
  switch (is_whole ? judge(&own, nic.mac, frame, piece->length) : PACKET_FOREIGN) {
  case PACKET_PROBE:
    counts->probes++;
    learn(frame);
    make_reply(&own, frame, piece->length);
    if (send_received(queue, piece)) {
      counts->replies++;
      return;
    }
    break;
  case PACKET_ARP_REQUEST:
    learn(frame);
    make_arp_reply(&own, nic.mac, frame);
    if (send_received(queue, piece)) return;
    break;
  case PACKET_ARP_REPLY: learn(frame); break;
  case PACKET_OTHER: counts->others++; break;
  case PACKET_CORRUPT: note(&counts->corrupt, "a probe that is not as it was sent", frame, piece->length); break;
  case PACKET_FOREIGN: note(&counts->wrong, "a packet for somebody else", frame, piece->length); break;
  }
  give_back(queue, piece->segment);
}

/* Memory for sending is as it was left: nobody else writes there. */
static void check_sent(uint32_t queue, int tag) {
  uint32_t length = queues[queue].sent[tag].length;
  if (!flood_is_as_made(&own, place(queue, tag), length)) {
    note(&counts->foreign, "memory for sending was changed", place(queue, tag), length);
  }
  counts->bytes += length;
}

static int complete(uint32_t queue) {
  struct queue *q = &queues[queue];
  struct martlet_descriptor burst[BURST];
  int done = martlet_completions(&nic, queue, burst, BURST);
  for (int i = 0; i < done; i++) {
    uint16_t tag = burst[i].tag;
    if (tag >= TAGS || !q->sent[tag].is_busy) {
      note(&counts->wrong, "a completion of what was not sent", (const uint8_t *)&burst[i], sizeof burst[i]);
      continue;
    }
    if (q->sent[tag].is_received) give_back(queue, q->sent[tag].segment); else check_sent(queue, tag);
    q->sent[tag].is_busy = 0;
    q->free_tags[q->free_count++] = tag;
  }
  return done > 0;
}

static int receive(uint32_t queue) {
  struct martlet_descriptor burst[BURST];
  int count = martlet_receive(&nic, queue, burst, BURST);
  int starts = 1;
  for (int i = 0; i < count; i++) {
    if (burst[i].flags & MARTLET_OFFLOAD) continue;
    int ends = !(burst[i].flags & MARTLET_MORE);
    take(queue, &burst[i], starts && ends);
    starts = ends;
  }
  return count > 0;
}

/* Packets of all sizes, of one piece or of three. */
static int flood(uint32_t queue) {
  struct queue *q = &queues[queue];
  int worked = 0;
  for (int i = 0; i < 32 && q->free_count > TAGS / 4; i++) {
    uint16_t tag = q->free_tags[q->free_count - 1];
    uint32_t length = FLOOD_HEADER + (flood_sequence * 2654435761u >> 16) % (1514 - FLOOD_HEADER + 1);
    uint32_t start = unit(queue, tag), cut = length / 3;
    struct martlet_descriptor whole = {start, 0, length, 0, tag};
    struct martlet_descriptor pieces[3] = {{start, 0, cut, MARTLET_MORE, tag}, {start, cut, cut, MARTLET_MORE, 0}, {start, 2 * cut, length - 2 * cut, 0, 0}};
    int is_whole = flood_sequence & 1;
    make_flood(&own, nic.mac, far_mac, place(queue, tag), length, flood_sequence);
    if (!send_packet(queue, is_whole ? &whole : pieces, is_whole ? 1 : 3, 0, length)) break;
    flood_sequence++;
    worked = 1;
  }
  return worked;
}

static void ask_for_far_mac(void) {
  if (queues[0].free_count == 0) return;
  uint16_t tag = queues[0].free_tags[queues[0].free_count - 1];
  struct martlet_descriptor piece = {unit(0, tag), 0, 42, 0, tag};
  make_arp_request(&own, nic.mac, place(0, tag));
  send_packet(0, &piece, 1, 0, 0);
}

static int turn(int is_flooding) {
  int worked = 0;
  for (uint32_t queue = 0; queue < nic.queue_count; queue++) {
    worked |= complete(queue);
    worked |= receive(queue);
    if (is_flooding && knows_far_mac) worked |= flood(queue);
  }
  martlet_ring(&nic);
  return worked;
}

static int are_all_complete(void) {
  for (uint32_t queue = 0; queue < nic.queue_count; queue++) if (queues[queue].free_count < TAGS) return 0;
  return 1;
}

static void on_signal(int signal) { must_end = signal; }

/* All that was sent has come back, then all memory for sending is looked at. */
static void end_well(void) {
  for (int i = 0; i < 2000 && !are_all_complete() && !martlet_closed(&nic); i++) {
    turn(0);
    martlet_sleep(&nic, 1);
  }
  if (!martlet_closed(&nic) && !are_all_complete()) note(&counts->wrong, "completions are missing", NULL, 0);
  const uint8_t *rest = place(nic.queue_count, 0), *end = nic.arena + nic.arena_bytes;
  if (!is_canary_or_zero(&own, rest, 0, (uint32_t)(end - rest))) {
    note(&counts->foreign, "memory for sending that was never used", rest, 64);
  }
  counts->bytes += (uint64_t)(end - rest);
}

int main(int argc, char **argv) {
  char request[256];
  if (argc != 10 || !identify(&own, argv[2], argv[3], argv[5], argv[7], argv[8])) return 64;
  int is_flooding = strcmp(argv[9], "flood") == 0;
  counts = open_counters(argv[4]);
  if (!counts) return 64;
  snprintf(request, sizeof request, "name=canary claims=%s", argv[6]);
  signal(SIGTERM, on_signal);
  if (martlet_attach(&nic, argv[1], request) < 0) {
    snprintf(counts->error, sizeof counts->error, "%s", nic.reason);
    /* A signal has ended the wait for an answer. */
    counts->state = must_end ? STATE_ENDED : STATE_REFUSED;
    return 1;
  }
  fill_canary(&own, nic.arena + nic.receive_bytes, nic.arena_bytes - nic.receive_bytes);
  if (nic.queue_count > QUEUES) return 64;
  for (uint32_t queue = 0; queue < QUEUES; queue++)
    for (int tag = 0; tag < TAGS; tag++) queues[queue].free_tags[queues[queue].free_count++] = (uint16_t)tag;
  counts->id = nic.id;
  __atomic_store_n(&counts->state, STATE_ATTACHED, __ATOMIC_RELEASE);
  time_t asked = 0;
  while (!martlet_closed(&nic) && !must_end) {
    int worked = turn(is_flooding);
    if (!knows_far_mac && time(NULL) != asked) {
      asked = time(NULL);
      ask_for_far_mac();
    }
    if (!worked) martlet_sleep(&nic, 100);
  }
  if (must_end) end_well();
  const char *reason = martlet_closed(&nic);
  if (reason) snprintf(counts->reason, sizeof counts->reason, "%s", reason);
  __atomic_store_n(&counts->state, reason ? STATE_CLOSED : STATE_ENDED, __ATOMIC_RELEASE);
  if (!reason && send(nic.socket, "bye", 3, MSG_NOSIGNAL) < 0) return 1;
  martlet_detach(&nic);
  return 0;
}
