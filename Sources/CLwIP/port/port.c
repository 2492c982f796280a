// What lwIP needs from outside: a clock, its heap's address, and wrappers for received segments.
#include "martlet_lwip.h"
#include <stdlib.h>
#include <time.h>

uint8_t *martlet_heap;

void martlet_set_heap(void *start) { martlet_heap = start; }

u32_t sys_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (u32_t)(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

// One wrapper for each receive segment: a segment is in lwIP at most once.
struct wrapper {
  struct pbuf_custom custom;
  uint32_t unit;
  uint8_t in_use;
};

static struct wrapper *wrappers;
static uint32_t wrapper_count, unit_shift;
static uint32_t *freed;
static uint32_t freed_count;

static void let_go(struct pbuf *p) {
  struct wrapper *w = (struct wrapper *)p;
  w->in_use = 0;
  freed[freed_count++] = w->unit;
}

int martlet_prepare_wrappers(uint32_t count, uint32_t units_per_segment) {
  wrappers = calloc(count, sizeof *wrappers);
  freed = calloc(count, sizeof *freed);
  wrapper_count = count;
  unit_shift = (uint32_t)__builtin_ctz(units_per_segment);
  return wrappers && freed;
}

struct pbuf *martlet_wrap(uint32_t unit, void *payload, uint16_t length) {
  uint32_t index = unit >> unit_shift;
  if (index >= wrapper_count || wrappers[index].in_use) return NULL;
  struct wrapper *w = &wrappers[index];
  w->in_use = 1;
  w->unit = unit;
  w->custom.custom_free_function = let_go;
  return pbuf_alloced_custom(PBUF_RAW, length, PBUF_REF, &w->custom, payload, length);
}

int martlet_take_freed(uint32_t *unit) {
  if (!freed_count) return 0;
  *unit = freed[--freed_count];
  return 1;
}
