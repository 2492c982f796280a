#include "control.h"
#include "descriptor.h"
#include <stdlib.h>

enum { CLASSES = 8, CACHE = 256, EXCHANGE = 128, BLOCK_UNITS = 128 };
/// The class in the lower half of `word`, the references in the upper one.
struct header { uint64_t word, position; char padding[48]; };
struct list { uint32_t *units; uint64_t count, capacity; };

/// Segments of 1 KiB to 128 KiB, named by their first KiB, with a header for each KiB; one thread's cache of free segments
/// in front, 128 exchanged at a time. Here every block is of the class of 2 KiB.
struct control_pool {
  struct header *headers;
  uint32_t first_unit, units;
  struct list all[CLASSES], cached[CLASSES];
};

struct control_pool *control_pool_make(void *arena, size_t arena_bytes) {
  struct control_pool *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  uint32_t blocks = (uint32_t)(arena_bytes / (BLOCK_UNITS * 1024 + BLOCK_UNITS * sizeof(struct header)));
  p->headers = arena;
  p->units = blocks * BLOCK_UNITS;
  p->first_unit = (uint32_t)(arena_bytes / 1024) - p->units;
  for (uint32_t c = 0; c < CLASSES; c++) p->cached[c] = (struct list){calloc(CACHE, sizeof(uint32_t)), 0, CACHE};
  uint32_t count = p->units / 2;
  p->all[1] = (struct list){calloc(count, sizeof(uint32_t)), count, count};
  for (uint32_t i = 0; i < count; i++) {
    uint32_t unit = p->first_unit + i * 2;
    p->headers[i * 2] = (struct header){1, (uint64_t)unit * 1024, {0}};
    p->all[1].units[count - 1 - i] = unit;
  }
  return p;
}

void control_pool_free(struct control_pool *p) {
  for (uint32_t c = 0; c < CLASSES; c++) {
    free(p->all[c].units);
    free(p->cached[c].units);
  }
  free(p);
}

static __attribute__((noinline)) void move(struct list *from, struct list *to) {
  for (int i = 0; i < EXCHANGE && from->count > 0 && to->count < to->capacity; i++)
    to->units[to->count++] = from->units[--from->count];
}

static inline uint32_t best_class(uint32_t bytes) {
  if (bytes <= 1024) return 0;
  uint32_t c = 22 - (uint32_t)__builtin_clz(bytes - 1);
  if (c >= CLASSES) abort();
  return c;
}

static inline struct header *header_of(struct control_pool *p, uint32_t unit) {
  uint32_t relative = unit - p->first_unit;
  if (relative >= p->units) abort();
  return &p->headers[relative];
}

static inline void lend(struct control_pool *p, uint32_t unit, uint32_t c) {
  __atomic_store_n(&p->headers[unit - p->first_unit].word, 1ull << 32 | c, __ATOMIC_RELEASE);
}

static inline uint32_t allocate(struct control_pool *p, uint32_t bytes) {
  uint32_t c = best_class(bytes);
  while (p->cached[c].count == 0) {
    move(&p->all[c], &p->cached[c]);
    if (p->cached[c].count == 0 && ++c == CLASSES) abort();
  }
  uint32_t unit = p->cached[c].units[--p->cached[c].count];
  lend(p, unit, c);
  return unit;
}

static inline void release(struct control_pool *p, uint32_t unit) {
  struct header *header = header_of(p, unit);
  uint64_t word = __atomic_load_n(&header->word, __ATOMIC_ACQUIRE);
  uint32_t c = word & 7;
  if (word >> 32 == 0) abort();
  if (word >> 32 > 1 && __atomic_fetch_sub(&header->word, 1ull << 32, __ATOMIC_ACQ_REL) >> 32 != 1) return;
  struct list *list = &p->cached[c];
  if (list->count == CACHE) move(list, &p->all[c]);
  __atomic_store_n(&header->word, c, __ATOMIC_RELAXED);
  list->units[list->count++] = unit;
}

static __attribute__((noinline)) uint32_t allocate_many(
    struct control_pool *p, uint32_t bytes, uint32_t wanted, struct descriptor *slots) {
  uint32_t c = best_class(bytes), n = 0;
  while (n < wanted) {
    struct list *list = &p->cached[c];
    uint32_t taken = wanted - n < list->count ? wanted - n : (uint32_t)list->count;
    list->count -= taken;
    const uint32_t *units = list->units + list->count;
    for (uint32_t i = 0; i < taken; i++) {
      lend(p, units[i], c);
      slots[n + i] = (struct descriptor){.segment = units[i], .length = bytes};
    }
    n += taken;
    if (n == wanted) break;
    move(&p->all[c], list);
    if (list->count == 0 && ++c == CLASSES) break;
  }
  return n;
}

static __attribute__((noinline)) void release_many(struct control_pool *p, const struct descriptor *slots, uint32_t count) {
  uint32_t i = 0;
  while (i < count) {
    // Runs of one class, without further references.
    uint32_t c = header_of(p, slots[i].segment)->word & 7;
    struct list *list = &p->cached[c];
    uint64_t alone = 1ull << 32 | c, n = list->count;
    uint32_t *units = list->units;
    uint64_t room = i + list->capacity - n;
    uint32_t end = count < room ? count : (uint32_t)room;
    for (; i < end; i++) {
      struct header *header = header_of(p, slots[i].segment);
      if (__atomic_load_n(&header->word, __ATOMIC_ACQUIRE) != alone) break;
      __atomic_store_n(&header->word, c, __ATOMIC_RELAXED);
      units[n++] = slots[i].segment;
    }
    list->count = n;
    if (i < count) release(p, slots[i++].segment);
  }
}

uint64_t control_pool_run(struct control_pool *p, uint32_t bulk, uint64_t times) {
  struct descriptor slots[64];
  if (bulk == 1) {
    for (uint64_t t = 0; t < times; t++) {
      uint32_t unit = allocate(p, 2048);
      __asm__ volatile("" : "+r"(unit) : : "memory");
      release(p, unit);
    }
  } else {
    for (uint64_t t = 0; t < times; t++) {
      if (allocate_many(p, 2048, bulk, slots) != bulk) abort();
      release_many(p, slots, bulk);
    }
  }
  return times * bulk;
}
