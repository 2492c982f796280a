#include "control.h"
#include <stdlib.h>

struct header { uint32_t size_class, references; uint64_t position; char padding[48]; };

/// One thread's cache of free segments in front of a pool of one class, 32 exchanged at a time.
struct control_pool {
  struct header *headers;
  uint32_t *free;
  uint32_t count, free_count, cached;
  uint32_t cache[64];
};

struct control_pool *control_pool_make(void *arena, size_t arena_bytes) {
  struct control_pool *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  p->count = p->free_count = (uint32_t)(arena_bytes / (2048 + sizeof(struct header)));
  p->headers = arena;
  p->free = calloc(p->count, sizeof *p->free);
  for (uint32_t i = 0; i < p->count; i++) {
    p->headers[i] = (struct header){1, 0, (uint64_t)i * 2048, {0}};
    p->free[i] = p->count - 1 - i;
  }
  return p;
}

void control_pool_free(struct control_pool *p) {
  free(p->free);
  free(p);
}

static inline uint32_t allocate(struct control_pool *p) {
  if (p->cached == 0) {
    while (p->cached < 32 && p->free_count > 0) p->cache[p->cached++] = p->free[--p->free_count];
    if (p->cached == 0) abort();
  }
  uint32_t segment = p->cache[--p->cached];
  __atomic_store_n(&p->headers[segment].references, 1, __ATOMIC_RELEASE);
  return segment;
}

static inline void release(struct control_pool *p, uint32_t segment) {
  if (segment >= p->count) abort();
  uint32_t *references = &p->headers[segment].references;
  uint32_t left = __atomic_load_n(references, __ATOMIC_ACQUIRE);
  if (left == 0) abort();
  if (left == 1)
    __atomic_store_n(references, 0, __ATOMIC_RELAXED);
  else if (__atomic_fetch_sub(references, 1, __ATOMIC_ACQ_REL) != 1)
    return;
  if (p->cached == 64)
    while (p->cached > 32) p->free[p->free_count++] = p->cache[--p->cached];
  p->cache[p->cached++] = segment;
}

uint64_t control_pool_run(struct control_pool *p, uint32_t bulk, uint64_t times) {
  uint32_t segments[64];
  for (uint64_t t = 0; t < times; t++) {
    for (uint32_t i = 0; i < bulk; i++) segments[i] = allocate(p);
    __asm__ volatile("" : : "r"(segments) : "memory");
    for (uint32_t i = 0; i < bulk; i++) release(p, segments[i]);
  }
  return times * bulk;
}
