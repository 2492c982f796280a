// Clocks as numbers. Read without a switch to the kernel (vDSO).
#pragma once
#include <stdint.h>
#include <time.h>

#define CLOCK_READ static inline __attribute__((always_inline))

/// Nanoseconds of a clock.
CLOCK_READ uint64_t clock_nanoseconds(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}
/// Of the clock that never goes back: CLOCK_MONOTONIC.
CLOCK_READ uint64_t monotonic_nanoseconds(void) { return clock_nanoseconds(CLOCK_MONOTONIC); }
CLOCK_READ uint64_t monotonic_milliseconds(void) { return monotonic_nanoseconds() / 1000000; }
