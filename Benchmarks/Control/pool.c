#include "control.h"
#include <stdlib.h>

enum { CLASSES = 8, CACHE = 64, EXCHANGE = 32, BLOCK_UNITS = 128 };
struct header { uint32_t size_class, references; uint64_t position; char padding[48]; };

/// Segments of 1 KiB to 128 KiB, named by their first KiB, in blocks of 128 KiB of one class each; one thread's cache of free
/// segments in front, 32 exchanged at a time. Here every block is of the class of 2 KiB.
struct control_pool {
  struct header *headers;
  uint32_t first_unit, blocks;
  uint8_t *block_class;
  uint32_t *block_first;
  uint32_t *free[CLASSES];
  uint32_t free_count[CLASSES], cached[CLASSES];
  uint32_t cache[CLASSES][CACHE];
};

struct control_pool *control_pool_make(void *arena, size_t arena_bytes) {
  struct control_pool *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  p->blocks = (uint32_t)(arena_bytes / (BLOCK_UNITS * 1024 + BLOCK_UNITS * sizeof(struct header)));
  p->headers = arena;
  p->first_unit = (uint32_t)(arena_bytes / 1024) - p->blocks * BLOCK_UNITS;
  p->block_class = calloc(p->blocks, 1);
  p->block_first = calloc(p->blocks, sizeof *p->block_first);
  p->free[1] = calloc(p->blocks * 64, sizeof(uint32_t));
  for (uint32_t i = 0; i < p->blocks * 64; i++) {
    uint32_t unit = p->first_unit + i * 2;
    p->headers[i] = (struct header){1, 0, (uint64_t)unit * 1024, {0}};
    p->free[1][p->blocks * 64 - 1 - i] = unit;
  }
  for (uint32_t b = 0; b < p->blocks; b++) {
    p->block_class[b] = 1;
    p->block_first[b] = b * 64;
  }
  p->free_count[1] = p->blocks * 64;
  return p;
}

void control_pool_free(struct control_pool *p) {
  free(p->block_class);
  free(p->block_first);
  free(p->free[1]);
  free(p);
}

/// The first class from `best` on that has segments in the cache now.
static __attribute__((noinline)) uint32_t fill(struct control_pool *p, uint32_t best) {
  for (uint32_t c = best; c < CLASSES; c++) {
    while (p->cached[c] < EXCHANGE && p->free_count[c] > 0) p->cache[c][p->cached[c]++] = p->free[c][--p->free_count[c]];
    if (p->cached[c] > 0) return c;
  }
  abort();
}

static __attribute__((noinline)) void spill(struct control_pool *p, uint32_t c) {
  while (p->cached[c] > EXCHANGE) p->free[c][p->free_count[c]++] = p->cache[c][--p->cached[c]];
}

static inline uint32_t allocate(struct control_pool *p, uint32_t bytes) {
  uint32_t c = bytes <= 1024 ? 0 : 22 - (uint32_t)__builtin_clz(bytes - 1);
  if (c >= CLASSES) abort();
  if (p->cached[c] == 0) c = fill(p, c);
  uint32_t unit = p->cache[c][--p->cached[c]], relative = unit - p->first_unit;
  struct header *header = &p->headers[p->block_first[relative >> 7] + ((relative & 127) >> c)];
  __atomic_store_n(&header->references, 1, __ATOMIC_RELEASE);
  return unit;
}

static inline void release(struct control_pool *p, uint32_t unit) {
  uint32_t relative = unit - p->first_unit, block = relative >> 7;
  if (unit < p->first_unit || block >= p->blocks) abort();
  uint32_t c = p->block_class[block];
  if (relative & ((1u << c) - 1)) abort();
  uint32_t *references = &p->headers[p->block_first[block] + ((relative & 127) >> c)].references;
  uint32_t left = __atomic_load_n(references, __ATOMIC_ACQUIRE);
  if (left == 0) abort();
  if (left == 1)
    __atomic_store_n(references, 0, __ATOMIC_RELAXED);
  else if (__atomic_fetch_sub(references, 1, __ATOMIC_ACQ_REL) != 1)
    return;
  if (p->cached[c] == CACHE) spill(p, c);
  p->cache[c][p->cached[c]++] = unit;
}

uint64_t control_pool_run(struct control_pool *p, uint32_t bulk, uint64_t times) {
  uint32_t units[64];
  for (uint64_t t = 0; t < times; t++) {
    for (uint32_t i = 0; i < bulk; i++) units[i] = allocate(p, 2048);
    __asm__ volatile("" : : "r"(units) : "memory");
    for (uint32_t i = 0; i < bulk; i++) release(p, units[i]);
  }
  return times * bulk;
}
