#include "control.h"
#include "descriptor.h"
#include "split_queue.h"

struct control_transmit {
  struct split_queue queue;
  struct raw_device device;
  char *headers;
  size_t arena_bytes;
  struct descriptor sending[64];
  uint16_t completed[64];
  uint64_t packets, byte_count, doorbells;
};

struct control_transmit *control_transmit_make(void *ring, void *arena, size_t arena_bytes) {
  struct control_transmit *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  (void)arena;
  queue_init(&t->queue, ring);
  t->device = (struct raw_device){ring, t->queue.available, t->queue.used, QUEUE_SIZE, 0, 1};
  t->headers = (char *)ring + CONTROL_RING_BYTES;
  t->arena_bytes = arena_bytes;
  return t;
}

void control_transmit_free(struct control_transmit *t) { free(t); }

/// A packet of several pieces, with a header of its own; false where there is no room for it.
static __attribute__((noinline)) bool send_pieces(struct control_transmit *t, const struct descriptor *slots, uint32_t pieces) {
  uint32_t bytes = 0;
  if (t->queue.free_count < pieces + 1) return false;
  for (uint32_t i = 0; i < pieces; i++) bytes += slots[i].length;
  require(bytes >= 14 && bytes <= 65535 + 18);
  uint16_t head = queue_take_free(&t->queue), last = head;
  char *header = t->headers + 16 + head * 16;
  memset(header, 0, 12);
  t->queue.descriptors[head] = (struct split_descriptor){(uint64_t)(uintptr_t)header, 12, 0, 0};
  for (uint32_t i = 0; i < pieces; i++) {
    uint16_t index = queue_take_free(&t->queue);
    t->queue.records[last].next = index;
    t->queue.descriptors[last].flags |= DESCRIPTOR_NEXT;
    t->queue.descriptors[last].next = index;
    t->queue.descriptors[index] = (struct split_descriptor){position(slots[i]), slots[i].length, 0, 0};
    last = index;
  }
  uint16_t next = t->queue.records[head].next;
  queue_expose(&t->queue, head, (struct record){(uint16_t)(pieces + 1), next, 0, slots[0].tag});
  t->packets++;
  t->byte_count += bytes;
  return true;
}

/// Packets of one piece that ask for nothing, up to the first of another kind: two descriptors each, the first for the
/// header that all of them share. Returns how many.
static uint32_t send_plain(struct control_transmit *t, const struct descriptor *slots, uint32_t count) {
  struct split_queue *q = &t->queue;
  uint64_t header = (uint64_t)(uintptr_t)t->headers, bytes = 0;
  uint32_t free_count = q->free_count, sent = 0;
  uint16_t available = q->next_available;
  for (; sent < count && free_count >= 2; sent++) {
    struct descriptor slot = slots[sent];
    if (slot.flags != 0 || slot.length - 14 > 65535 + 18 - 14) break;
    uint16_t head = q->free[--free_count], next = q->free[--free_count];
    q->descriptors[head] = (struct split_descriptor){header, 12, DESCRIPTOR_NEXT, next};
    q->descriptors[next] = (struct split_descriptor){position(slot), slot.length, 0, 0};
    q->records[head] = (struct record){2, next, 0, slot.tag};
    q->available[2 + (available++ & (QUEUE_SIZE - 1))] = head;
    bytes += slot.length;
  }
  q->free_count = free_count;
  q->next_available = available;
  q->heads += sent;
  t->packets += sent;
  t->byte_count += bytes;
  return sent;
}

static uint32_t complete(struct control_transmit *t) {
  struct split_queue *q = &t->queue;
  int used = queue_used_count(q);
  require(used >= 0);
  const struct used_element *elements = (const void *)(q->used + 2);
  uint32_t count = used < 64 ? (uint32_t)used : 64, free_count = q->free_count;
  uint16_t next = q->next_used;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t id = __atomic_load_n(&elements[next++ & (QUEUE_SIZE - 1)].id, __ATOMIC_RELAXED);
    require(id < QUEUE_SIZE);
    struct record record = q->records[id];
    require(record.count > 0);
    q->records[id].count = 0;
    q->free[free_count++] = (uint16_t)id;
    uint16_t index = record.next;
    for (uint16_t left = record.count - 1; left > 0; left--) {
      q->free[free_count++] = index;
      index = q->records[index].next;
    }
    t->completed[i] = (uint16_t)record.cookie;
  }
  q->next_used = next;
  q->heads -= count;
  q->free_count = free_count;
  return count;
}

uint64_t control_transmit_run(struct control_transmit *t, uint64_t bursts) {
  uint64_t done = 0;
  for (uint64_t b = 0; b < bursts; b++) {
    for (uint16_t i = 0; i < CONTROL_BURST; i++) t->sending[i] = (struct descriptor){i * 2u, 0, 64, 0, i};
    for (uint32_t at = 0; at < CONTROL_BURST;) {
      at += send_plain(t, &t->sending[at], CONTROL_BURST - at);
      if (at == CONTROL_BURST) break;
      uint32_t end = at;
      while (t->sending[end].flags & FLAG_MORE) end++;
      require(send_pieces(t, &t->sending[at], end - at + 1));
      at = end + 1;
    }
    queue_publish(&t->queue);
    if (queue_should_notify(&t->queue)) t->doorbells++;
    raw_device_use_split(&t->device, CONTROL_BURST, 0);
    uint32_t count = complete(t);
    for (uint32_t i = 0; i < count; i++) require(t->completed[i] < CONTROL_BURST);
    done += count;
  }
  return done;
}
