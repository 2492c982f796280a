// What the peers' programs share: a clock, the share of its core that a thread got, commands by lines.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static inline uint64_t clock_now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct stopwatch { uint64_t wall, cpu; };

static inline struct stopwatch stopwatch_start(void) {
  return (struct stopwatch){clock_now(CLOCK_MONOTONIC), clock_now(CLOCK_THREAD_CPUTIME_ID)};
}
static inline uint64_t stopwatch_elapsed(struct stopwatch s) { return clock_now(CLOCK_MONOTONIC) - s.wall; }
static inline double stopwatch_share(struct stopwatch s) {
  return (double)(clock_now(CLOCK_THREAD_CPUTIME_ID) - s.cpu) / (double)(stopwatch_elapsed(s) + 1);
}

/// The next command: a word and two numbers. Returns 0 at the end of input.
static inline int next_command(char word[32], unsigned *size, unsigned *milliseconds) {
  char line[128];
  while (fgets(line, sizeof line, stdin))
    if (sscanf(line, "%31s %u %u", word, size, milliseconds) == 3) return 1;
  return 0;
}
