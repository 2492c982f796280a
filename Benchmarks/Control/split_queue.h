// The driver's side of a split virtqueue of 256 (virtio 1.2, 2.7), with a private record of what was made available.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_SIZE = 256, USED_OFFSET = (QUEUE_SIZE * 16 + 6 + 2 * QUEUE_SIZE + 127) / 128 * 128 };
enum { DESCRIPTOR_NEXT = 1, DESCRIPTOR_WRITE = 2 };

struct split_descriptor { uint64_t address; uint32_t length; uint16_t flags, next; };
struct used_element { uint32_t id, length; };
struct record { uint16_t count, next; uint32_t writable; uint64_t cookie; };

struct split_queue {
  struct split_descriptor *descriptors;
  uint16_t *available, *used;
  struct record records[QUEUE_SIZE];
  uint16_t free[QUEUE_SIZE];
  uint32_t free_count, heads;
  uint16_t next_available, published, notified, next_used;
  bool broken;
};

static inline void queue_init(struct split_queue *q, char *memory) {
  memset(q, 0, sizeof *q);
  q->descriptors = (void *)memory;
  q->available = (void *)(memory + QUEUE_SIZE * 16);
  q->used = (void *)(memory + USED_OFFSET);
  for (int i = 0; i < QUEUE_SIZE; i++) q->free[i] = (uint16_t)(QUEUE_SIZE - 1 - i);
  q->free_count = QUEUE_SIZE;
}

static inline void require(bool holds) { if (__builtin_expect(!holds, 0)) abort(); }

static inline uint16_t queue_take_free(struct split_queue *q) {
  require(q->free_count > 0);
  return q->free[--q->free_count];
}

static inline void queue_expose(struct split_queue *q, uint16_t head, struct record record) {
  q->records[head] = record;
  q->heads++;
  q->available[2 + (q->next_available & (QUEUE_SIZE - 1))] = head;
  q->next_available++;
}

static inline void queue_publish(struct split_queue *q) {
  if (q->published == q->next_available) return;
  q->published = q->next_available;
  __atomic_store_n(&q->available[1], q->next_available, __ATOMIC_RELEASE);
}

static inline bool queue_should_notify(struct split_queue *q) {
  if (q->notified == q->published) return false;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  uint16_t before = q->notified;
  q->notified = q->published;
  uint16_t event = __atomic_load_n(&q->used[2 + QUEUE_SIZE * 4], __ATOMIC_RELAXED);
  return (uint16_t)(q->published - event - 1) < (uint16_t)(q->published - before);
}

/// Chains that were used; -1 where the index jumped.
static inline int queue_used_count(struct split_queue *q) {
  if (q->broken) return -1;
  uint16_t index = __atomic_load_n(&q->used[1], __ATOMIC_ACQUIRE);
  uint32_t count = (uint16_t)(index - q->next_used);
  if (count > q->heads) {
    q->broken = true;
    return -1;
  }
  return (int)count;
}
