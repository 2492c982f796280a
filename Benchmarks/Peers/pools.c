// DPDK's pools and ring, told by lines what to measure:
//   mempool BULK MS   rte_mempool get and put, without a reference count
//   mbuf BULK MS      rte_pktmbuf allocate and free, with one
//   ring BURST MS     rte_ring of 16-byte elements from one thread to another
// Each answers `result VALUE SHARE`: nanoseconds an object, or for the ring millions a second, and the least share of a core.
#define _GNU_SOURCE
#include "measure.h"
#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_pause.h>
#include <rte_ring.h>
#include <stdlib.h>

enum { OBJECTS = 16383, CACHE = 512, ROUNDS = 1024 };

static void require(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "%s failed\n", what);
  exit(1);
}

static void answer(double value, double share) {
  printf("result %.4f %.3f\n", value, share);
  fflush(stdout);
}

static void measure_mempool(struct rte_mempool *pool, unsigned bulk, unsigned milliseconds) {
  void *objects[64];
  uint64_t count = 0;
  struct stopwatch watch = stopwatch_start();
  while (stopwatch_elapsed(watch) < milliseconds * 1000000ull) {
    for (int i = 0; i < ROUNDS; i++) {
      require(rte_mempool_get_bulk(pool, objects, bulk) == 0, "rte_mempool_get_bulk");
      __asm__ volatile("" : : "r"(objects) : "memory");
      rte_mempool_put_bulk(pool, objects, bulk);
    }
    count += (uint64_t)ROUNDS * bulk;
  }
  answer((double)stopwatch_elapsed(watch) / (double)count, stopwatch_share(watch));
}

static void measure_mbuf(struct rte_mempool *pool, unsigned bulk, unsigned milliseconds) {
  struct rte_mbuf *buffers[64];
  uint64_t count = 0;
  struct stopwatch watch = stopwatch_start();
  while (stopwatch_elapsed(watch) < milliseconds * 1000000ull) {
    for (int i = 0; i < ROUNDS; i++) {
      require(rte_pktmbuf_alloc_bulk(pool, buffers, bulk) == 0, "rte_pktmbuf_alloc_bulk");
      __asm__ volatile("" : : "r"(buffers) : "memory");
      rte_pktmbuf_free_bulk(buffers, bulk);
    }
    count += (uint64_t)ROUNDS * bulk;
  }
  answer((double)stopwatch_elapsed(watch) / (double)count, stopwatch_share(watch));
}

struct element { uint32_t words[4]; };
static struct { struct rte_ring *ring; unsigned burst; volatile int stop; volatile int runs; uint64_t received; double share; } consumer;

static int consume(void *unused) {
  (void)unused;
  struct element elements[64];
  struct stopwatch watch = stopwatch_start();
  uint64_t received = 0;
  consumer.runs = 1;
  while (!consumer.stop) {
    unsigned count = rte_ring_sc_dequeue_burst_elem(consumer.ring, elements, 16, consumer.burst, NULL);
    if (count == 0) rte_pause();
    for (unsigned i = 0; i < count; i++) received += elements[i].words[2] == 64;
  }
  consumer.received = received;
  consumer.share = stopwatch_share(watch);
  return 0;
}

static void measure_ring(struct rte_ring *ring, unsigned burst, unsigned milliseconds) {
  struct element elements[64], drained[64];
  consumer.ring = ring;
  consumer.burst = burst;
  consumer.stop = consumer.runs = 0;
  rte_eal_remote_launch(consume, NULL, rte_get_next_lcore(-1, 1, 0));
  while (!consumer.runs) rte_pause();
  struct stopwatch watch = stopwatch_start();
  for (uint64_t i = 0;; i++) {
    if ((i & 255) == 0 && stopwatch_elapsed(watch) >= milliseconds * 1000000ull) break;
    for (unsigned k = 0; k < burst; k++) elements[k] = (struct element){{k * 2, 0, 64, k}};
    for (unsigned at = 0; at < burst;) {
      unsigned moved = rte_ring_sp_enqueue_burst_elem(ring, elements + at, 16, burst - at, NULL);
      if (moved == 0) rte_pause();
      at += moved;
    }
  }
  consumer.stop = 1;
  rte_eal_mp_wait_lcore();
  double share = stopwatch_share(watch), rate = (double)consumer.received * 1000 / (double)stopwatch_elapsed(watch);
  while (rte_ring_sc_dequeue_burst_elem(ring, drained, 16, 64, NULL)) {}
  answer(rate, share < consumer.share ? share : consumer.share);
}

int main(int count, char **arguments) {
  require(rte_eal_init(count, arguments) >= 0, "rte_eal_init");
  struct rte_mempool *pool = rte_mempool_create("objects", OBJECTS, 2048, CACHE, 0, NULL, NULL, NULL, NULL, rte_socket_id(), 0);
  struct rte_mempool *buffers = rte_pktmbuf_pool_create("buffers", OBJECTS, CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, rte_socket_id());
  struct rte_ring *ring = rte_ring_create_elem("ring", 16, 1024, rte_socket_id(), RING_F_SP_ENQ | RING_F_SC_DEQ);
  require(pool && buffers && ring, "making the pools");
  printf("ready\n");
  fflush(stdout);
  char word[32];
  unsigned size, milliseconds;
  while (next_command(word, &size, &milliseconds)) {
    if (size < 1 || size > 64) continue;
    if (strcmp(word, "mempool") == 0) measure_mempool(pool, size, milliseconds);
    if (strcmp(word, "mbuf") == 0) measure_mbuf(buffers, size, milliseconds);
    if (strcmp(word, "ring") == 0) measure_ring(ring, size, milliseconds);
  }
  return rte_eal_cleanup();
}
