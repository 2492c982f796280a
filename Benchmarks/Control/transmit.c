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

/// One packet of one or more pieces, whole; false where there is no room for it.
static inline bool send_packet(struct control_transmit *t, const struct descriptor *slots, uint32_t pieces) {
  uint32_t bytes = 0;
  if (t->queue.free_count < pieces + 1) return false;
  for (uint32_t i = 0; i < pieces; i++) bytes += slots[i].length;
  require(bytes >= 14 && bytes <= 65535 + 18);
  uint16_t head = queue_take_free(&t->queue), last = head;
  char *header = t->headers + head * 16;
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

static uint32_t complete(struct control_transmit *t) {
  int used = queue_used_count(&t->queue);
  require(used >= 0);
  uint32_t count = 0;
  for (; used > 0 && count < 64; used--) {
    uint64_t cookie;
    uint32_t length;
    require(queue_take_used(&t->queue, &cookie, &length));
    t->completed[count++] = (uint16_t)cookie;
  }
  return count;
}

uint64_t control_transmit_run(struct control_transmit *t, uint64_t bursts) {
  uint64_t done = 0;
  for (uint64_t b = 0; b < bursts; b++) {
    for (uint16_t i = 0; i < CONTROL_BURST; i++) t->sending[i] = (struct descriptor){i * 2u, 0, 64, 0, i};
    for (uint32_t at = 0; at < CONTROL_BURST;) {
      uint32_t end = at;
      while (t->sending[end].flags & FLAG_MORE) end++;
      require(send_packet(t, &t->sending[at], end - at + 1));
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
