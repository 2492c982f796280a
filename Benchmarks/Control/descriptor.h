// What crosses every boundary: 16 bytes that name a piece of a packet.
#pragma once
#include <stdint.h>

enum { FLAG_MORE = 1, FLAG_OFFLOAD = 2 };
struct descriptor { uint32_t segment, offset, length; uint16_t flags, tag; };

static inline uint64_t position(struct descriptor d) { return (uint64_t)d.segment * 1024 + d.offset; }
