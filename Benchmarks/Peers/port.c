// One DPDK port (virtio-user, memif) whose other side sends back what it gets. Told by lines what to measure:
//   ping BURST MS   bursts of 64-byte frames, one at a time on the way
// Answers `result P50 P99 P999 P9999 SHARE` (round trips in nanoseconds) or `lost` where a burst did not come back.
#define _GNU_SOURCE
#include "measure.h"
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_pause.h>
#include <stdlib.h>

static struct rte_mempool *buffers;
/// Round trips by nanoseconds up to 65535, then by steps of 1024 up to 67 ms.
static uint32_t fine[65536], coarse[65536];

static void require(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "%s failed\n", what);
  exit(1);
}

static void record(uint64_t nanoseconds) {
  if (nanoseconds < RTE_DIM(fine)) fine[nanoseconds]++;
  else coarse[RTE_MIN(nanoseconds >> 10, RTE_DIM(coarse) - 1)]++;
}

static uint64_t percentile(uint64_t total, double part) {
  uint64_t wanted = (uint64_t)((double)total * part), seen = 0;
  for (uint32_t i = 0; i < RTE_DIM(fine); i++)
    if ((seen += fine[i]) > wanted) return i;
  for (uint32_t i = 0; i < RTE_DIM(coarse); i++)
    if ((seen += coarse[i]) > wanted) return (uint64_t)i << 10;
  return (uint64_t)RTE_DIM(coarse) << 10;
}

static void drain(void) {
  struct rte_mbuf *in[64];
  uint64_t start = clock_now(CLOCK_MONOTONIC);
  while (clock_now(CLOCK_MONOTONIC) - start < 20000000) {
    uint16_t got = rte_eth_rx_burst(0, 0, in, 64);
    rte_pktmbuf_free_bulk(in, got);
  }
}

/// Sends a burst and waits until it is back; false after 50 ms.
static int round_trip(unsigned burst) {
  struct rte_mbuf *out[64], *in[64];
  uint64_t start = clock_now(CLOCK_MONOTONIC);
  require(rte_pktmbuf_alloc_bulk(buffers, out, burst) == 0, "rte_pktmbuf_alloc_bulk");
  for (unsigned i = 0; i < burst; i++) {
    out[i]->data_len = 64;
    out[i]->pkt_len = 64;
    memset(rte_pktmbuf_mtod(out[i], void *), 0x5a, 64);
  }
  unsigned sent = 0, back = 0;
  while (back < burst) {
    if (sent < burst) sent += rte_eth_tx_burst(0, 0, out + sent, (uint16_t)(burst - sent));
    uint16_t got = rte_eth_rx_burst(0, 0, in, 64);
    rte_pktmbuf_free_bulk(in, got);
    back += got;
    if (got == 0 && clock_now(CLOCK_MONOTONIC) - start > 50000000) {
      rte_pktmbuf_free_bulk(out + sent, burst - sent);
      return 0;
    }
  }
  record(clock_now(CLOCK_MONOTONIC) - start);
  return 1;
}

static void ping(unsigned burst, unsigned milliseconds) {
  drain();
  for (int i = 0; i < 100; i++) round_trip(burst);
  memset(fine, 0, sizeof fine);
  memset(coarse, 0, sizeof coarse);
  uint64_t total = 0, lost = 0;
  struct stopwatch watch = stopwatch_start();
  while (stopwatch_elapsed(watch) < milliseconds * 1000000ull && lost < 10) {
    if (round_trip(burst)) total++; else lost++;
  }
  if (lost > 0 || total == 0)
    printf("lost\n");
  else
    printf("result %lu %lu %lu %lu %.3f\n", percentile(total, 0.5), percentile(total, 0.99), percentile(total, 0.999),
           percentile(total, 0.9999), stopwatch_share(watch));
  fflush(stdout);
}

int main(int count, char **arguments) {
  require(rte_eal_init(count, arguments) >= 0, "rte_eal_init");
  require(rte_eth_dev_count_avail() == 1, "finding the port");
  buffers = rte_pktmbuf_pool_create("buffers", 8191, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, rte_socket_id());
  require(buffers != NULL, "making the pool");
  struct rte_eth_conf none = {0};
  require(rte_eth_dev_configure(0, 1, 1, &none) == 0, "configuring the port");
  require(rte_eth_rx_queue_setup(0, 0, 256, rte_socket_id(), NULL, buffers) == 0, "the receive queue");
  require(rte_eth_tx_queue_setup(0, 0, 256, rte_socket_id(), NULL) == 0, "the transmit queue");
  require(rte_eth_dev_start(0) == 0, "starting the port");
  printf("ready\n");
  fflush(stdout);
  char word[32];
  unsigned size, milliseconds;
  while (next_command(word, &size, &milliseconds))
    if (strcmp(word, "ping") == 0 && size >= 1 && size <= 64) ping(size, milliseconds);
  rte_eth_dev_stop(0);
  return rte_eal_cleanup();
}
