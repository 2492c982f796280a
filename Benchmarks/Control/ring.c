#include "control.h"
#include "descriptor.h"
#include <stdlib.h>
#include <string.h>

struct control_ring {
  struct descriptor *slots;
  uint32_t *own, *peer;
  uint32_t mask, next, peer_index;
  struct descriptor burst[64];
};

struct control_ring *control_ring_make(void *slots, uint32_t count, void *own, void *peer) {
  struct control_ring *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  *r = (struct control_ring){slots, own, peer, count - 1, 0, 0, {{0}}};
  return r;
}

void control_ring_free(struct control_ring *ring) { free(ring); }

static inline void spin(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Moves whole packets from the burst's front into the ring; returns slots moved.
static inline uint32_t push(struct control_ring *r, const struct descriptor *burst, uint32_t count) {
  uint32_t room = r->mask + 1 - (r->next - r->peer_index);
  if (room < count) {
    uint32_t claimed = __atomic_load_n(r->peer, __ATOMIC_ACQUIRE);
    if (r->next - claimed <= r->mask + 1) r->peer_index = claimed;
    room = r->mask + 1 - (r->next - r->peer_index);
  }
  uint32_t moved = room < count ? room : count;
  if (moved < count)
    while (moved > 0 && burst[moved - 1].flags & FLAG_MORE) moved--;
  if (moved == 0) return 0;
  uint32_t first = r->next & r->mask, straight = r->mask + 1 - first < moved ? r->mask + 1 - first : moved;
  memcpy(r->slots + first, burst, straight * sizeof *burst);
  if (straight < moved) memcpy(r->slots, burst + straight, (moved - straight) * sizeof *burst);
  r->next += moved;
  __atomic_store_n(r->own, r->next, __ATOMIC_RELEASE);
  return moved;
}

/// Copies whole packets out of the ring; returns slots.
static inline uint32_t pop(struct control_ring *r, struct descriptor *burst, uint32_t capacity) {
  if (r->peer_index == r->next) {
    uint32_t claimed = __atomic_load_n(r->peer, __ATOMIC_ACQUIRE);
    if (claimed - r->next > r->mask + 1) abort();
    r->peer_index = claimed;
    if (claimed == r->next) return 0;
  }
  uint32_t taken = r->peer_index - r->next;
  if (taken > capacity) taken = capacity;
  uint32_t first = r->next & r->mask, straight = r->mask + 1 - first < taken ? r->mask + 1 - first : taken;
  memcpy(burst, r->slots + first, straight * sizeof *burst);
  if (straight < taken) memcpy(burst + straight, r->slots, (taken - straight) * sizeof *burst);
  uint32_t kept = taken;
  while (kept > 0 && burst[kept - 1].flags & FLAG_MORE) kept--;
  if (taken - kept >= 64) abort();
  r->next += kept;
  if (kept > 0) __atomic_store_n(r->own, r->next, __ATOMIC_RELEASE);
  if (kept < taken) r->peer_index = r->next;
  return kept;
}

static void fill(struct control_ring *r, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) r->burst[i] = (struct descriptor){i * 2, 0, 64, 0, (uint16_t)i};
}

uint64_t control_ring_run(struct control_ring *producer, struct control_ring *consumer, uint64_t bursts) {
  uint64_t done = 0;
  fill(producer, CONTROL_BURST);
  for (uint64_t b = 0; b < bursts; b++) {
    if (push(producer, producer->burst, CONTROL_BURST) != CONTROL_BURST) abort();
    uint32_t count = pop(consumer, producer->burst, 64);
    for (uint32_t i = 0; i < count; i++) done += producer->burst[i].length == 64;
  }
  return done;
}

uint64_t control_ring_produce(struct control_ring *r, uint32_t burst, const uint32_t *stop) {
  uint64_t done = 0;
  while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
    fill(r, burst);
    for (uint32_t at = 0; at < burst && !__atomic_load_n(stop, __ATOMIC_RELAXED);) {
      uint32_t moved = push(r, r->burst + at, burst - at);
      if (moved == 0) spin();
      at += moved;
      done += moved;
    }
  }
  return done;
}

uint64_t control_ring_consume(struct control_ring *r, uint32_t burst, const uint32_t *stop) {
  uint64_t done = 0;
  while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
    uint32_t count = pop(r, r->burst, burst);
    if (count == 0) spin();
    for (uint32_t i = 0; i < count; i++) done += r->burst[i].length == 64;
  }
  return done;
}
