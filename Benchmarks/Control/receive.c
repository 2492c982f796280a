#include "control.h"
#include "descriptor.h"
#include "split_queue.h"

enum owner { HOST, DEVICE, INSTANCE };
struct net_header { uint8_t flags, segmentation; uint16_t header_length, segment_size, start, offset, buffers; };

struct control_receive {
  struct split_queue queue;
  struct raw_device device;
  char *arena;
  uint8_t *owners;
  uint32_t *free;
  uint32_t count, free_count, with_device;
  uint32_t pieces, missing, bytes;
  struct net_header header;
  struct descriptor partial[64], received[128], posts[64];
  uint64_t packets, byte_count, errors, sum, doorbells;
};

struct control_receive *control_receive_make(void *ring, void *arena, size_t arena_bytes) {
  struct control_receive *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  queue_init(&r->queue, ring);
  r->device = (struct raw_device){ring, r->queue.available, r->queue.used, QUEUE_SIZE, 0, 1};
  r->arena = arena;
  r->count = r->free_count = (uint32_t)(arena_bytes / 2048);
  r->owners = calloc(r->count, 1);
  r->free = calloc(r->count, sizeof *r->free);
  for (uint32_t i = 0; i < r->count; i++) r->free[i] = r->count - 1 - i;
  return r;
}

void control_receive_free(struct control_receive *r) {
  free(r->owners);
  free(r->free);
  free(r);
}

/// The ledger's number of a segment, or -1.
static inline int64_t segment_index(const struct control_receive *r, uint32_t segment) {
  if (segment & 1) return -1;
  return segment / 2 < r->count ? (int64_t)(segment / 2) : -1;
}

/// Lends free segments to the device, at most 64.
static void refill(struct control_receive *r) {
  struct split_queue *q = &r->queue;
  uint32_t count = q->free_count < 64 ? q->free_count : 64;
  if (count > r->free_count) count = r->free_count;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t index = r->free[r->free_count - 1 - i], colour = (index >> 1 & 7) * 64 + 52;
    r->owners[index] = DEVICE;
    r->posts[i] = (struct descriptor){index * 2, colour, 2048 - colour, 0, 0};
  }
  r->free_count -= count;
  r->with_device += count;
  uint16_t available = q->next_available;
  for (uint32_t i = 0; i < count; i++) {
    struct descriptor slot = r->posts[i];
    uint16_t head = q->free[q->free_count - 1 - i];
    q->descriptors[head] = (struct split_descriptor){position(slot), slot.length, DESCRIPTOR_WRITE, 0};
    uint64_t cookie = (uint64_t)slot.segment << 32 | slot.offset;
    q->records[head] = (struct record){1, 0, slot.length, cookie};
    q->available[2 + (available++ & (QUEUE_SIZE - 1))] = head;
  }
  q->free_count -= count;
  q->heads += count;
  q->next_available = available;
  queue_publish(q);
  if (queue_should_notify(q)) r->doorbells++;
}

/// A packet of several buffers, or one that is refused: a further buffer of it. Returns slots written.
static __attribute__((noinline)) uint32_t take_piece(struct control_receive *r, struct descriptor buffer, struct descriptor *out) {
  if (r->missing == 0) {
    if (buffer.length <= 12) { r->errors++; return 0; }
    memcpy(&r->header, r->arena + position(buffer), 12);
    buffer.offset += 12;
    buffer.length -= 12;
    r->bytes = buffer.length;
    int missing = (int)r->header.buffers - 1;
    if (missing < 0 || missing > 62) { r->errors++; return 0; }
    r->missing = (uint32_t)missing;
  } else {
    r->missing--;
    r->bytes += buffer.length;
  }
  require(r->pieces < 64);
  r->partial[r->pieces++] = buffer;
  if (r->missing > 0) return 0;
  uint32_t count = r->pieces;
  r->pieces = 0;
  if (r->bytes < 14 || r->bytes > 65535 + 18 || r->header.flags || r->header.segmentation) { r->errors++; return 0; }
  for (uint32_t i = 0; i < count; i++) {
    out[i] = r->partial[i];
    out[i].flags = i + 1 < count ? FLAG_MORE : 0;
  }
  r->packets++;
  r->byte_count += r->bytes;
  return count;
}

/// Used buffers become packets. What changes for each is read into locals and written back once.
static uint32_t receive(struct control_receive *r) {
  struct split_queue *q = &r->queue;
  int used = queue_used_count(q);
  require(used >= 0);
  const struct used_element *elements = (const void *)(q->used + 2);
  uint16_t next = q->next_used;
  uint32_t free_count = q->free_count, count = 0, taken = 0;
  uint64_t packets = 0, bytes = 0;
  for (; taken < (uint32_t)used && count + 64 <= 128; taken++) {
    const struct used_element *element = &elements[next++ & (QUEUE_SIZE - 1)];
    uint32_t id = __atomic_load_n(&element->id, __ATOMIC_RELAXED);
    uint32_t length = __atomic_load_n(&element->length, __ATOMIC_RELAXED);
    require(id < QUEUE_SIZE);
    struct record record = q->records[id];
    require(record.count == 1 && length <= record.writable);
    q->records[id].count = 0;
    q->free[free_count++] = (uint16_t)id;
    struct descriptor buffer = {(uint32_t)(record.cookie >> 32), (uint32_t)record.cookie, length, 0, 0};
    uint64_t low;
    uint32_t high;
    memcpy(&low, r->arena + position(buffer), 8);
    memcpy(&high, r->arena + position(buffer) + 8, 4);
    // One buffer and nothing asked for, which is nearly every packet.
    if (r->missing == 0 && length >= 12 + 14 && (uint16_t)low == 0 && high >> 16 == 1) {
      buffer.offset += 12;
      buffer.length -= 12;
      r->received[count++] = buffer;
      packets++;
      bytes += buffer.length;
    } else {
      count += take_piece(r, buffer, r->received + count);
    }
  }
  q->next_used = next;
  q->heads -= taken;
  q->free_count = free_count;
  r->packets += packets;
  r->byte_count += bytes;
  return count;
}

uint64_t control_receive_run(struct control_receive *r, uint64_t bursts) {
  uint64_t before = r->packets;
  refill(r);
  for (uint64_t b = 0; b < bursts; b++) {
    raw_device_use_split(&r->device, CONTROL_BURST, 76);
    uint32_t count = receive(r);
    for (uint32_t i = 0; i < count; i++) {
      int64_t index = segment_index(r, r->received[i].segment);
      require(index >= 0 && r->owners[index] == DEVICE);
      r->owners[index] = INSTANCE;
      r->with_device--;
    }
    for (uint32_t i = 0; i < count; i++) {
      uint64_t word;
      memcpy(&word, r->arena + position(r->received[i]), 8);
      r->sum += word;
    }
    for (uint32_t i = 0; i < count; i++) {
      int64_t index = segment_index(r, r->received[i].segment);
      require(index >= 0 && r->owners[index] == INSTANCE);
      r->owners[index] = HOST;
      r->free[r->free_count++] = (uint32_t)index;
    }
    refill(r);
  }
  return r->packets - before;
}
