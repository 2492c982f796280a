// The C control: the loops of Martlet's data path once more in plain C, with the same work and the same checks, as a
// measure of what Swift costs. Each is made on memory that the caller owns, then run for a number of bursts of 32.
// None checks its arguments: they are for the benchmark alone. One thread each.
#pragma once
#include "raw_device.h"
#include <stddef.h>
#include <stdint.h>

#define CONTROL_BURST 32

/// Bytes of a split ring of 256 descriptors, from an address aligned to 4096.
#define CONTROL_RING_BYTES 8192

struct control_receive;
/// Receive from a split ring: used ring, private record, virtio_net_hdr, ledger, refill.
/// `ring`: CONTROL_RING_BYTES zeroed bytes. `arena`: segments of 2048 bytes.
struct control_receive *_Nullable control_receive_make(void *_Nonnull ring, void *_Nonnull arena, size_t arena_bytes);
/// Returns packets received; each is given to a caller that reads its first 8 bytes and gives it back.
uint64_t control_receive_run(struct control_receive *_Nonnull loop, uint64_t bursts);
void control_receive_free(struct control_receive *_Nonnull loop);

struct control_transmit;
/// Send on a split ring: virtio_net_hdr, chain of two, private record, completion.
/// `ring`: CONTROL_RING_BYTES zeroed bytes and 8192 more for headers.
struct control_transmit *_Nullable control_transmit_make(void *_Nonnull ring, void *_Nonnull arena, size_t arena_bytes);
/// Returns packets sent and completed.
uint64_t control_transmit_run(struct control_transmit *_Nonnull loop, uint64_t bursts);
void control_transmit_free(struct control_transmit *_Nonnull loop);

struct control_ring;
/// One end of a ring of `slots` 16-byte descriptors. `own` and `peer`: the ends' indices, a cache line each.
struct control_ring *_Nullable control_ring_make(void *_Nonnull slots, uint32_t count, void *_Nonnull own, void *_Nonnull peer);
/// Pushes and pops bursts of 32 through two ends of one ring, in one thread. Returns descriptors that came through.
uint64_t control_ring_run(struct control_ring *_Nonnull producer, struct control_ring *_Nonnull consumer, uint64_t bursts);
/// Pushes up to `bursts` bursts of `burst` descriptors, or spins; ends when `*stop` is not 0. Returns descriptors pushed.
uint64_t control_ring_produce(struct control_ring *_Nonnull producer, uint32_t burst, const uint32_t *_Nonnull stop);
uint64_t control_ring_consume(struct control_ring *_Nonnull consumer, uint32_t burst, const uint32_t *_Nonnull stop);
void control_ring_free(struct control_ring *_Nonnull ring);

struct control_pool;
/// A pool of segments of power-of-two classes with headers of a cache line and reference counts.
struct control_pool *_Nullable control_pool_make(void *_Nonnull arena, size_t arena_bytes);
/// Allocates `bulk` segments of 2048 bytes and releases them, so many times. Returns segments.
uint64_t control_pool_run(struct control_pool *_Nonnull pool, uint32_t bulk, uint64_t times);
void control_pool_free(struct control_pool *_Nonnull pool);
