#define _GNU_SOURCE
#include "bus_guard.h"
#include <signal.h>

// Written by ordinary threads, read by the signal handler: `length` is stored last and cleared first, so that a slot
// with a length is whole.
static struct { uintptr_t address; size_t length; int replaced; } ranges[LINUX_BUS_GUARD_RANGES];
static int high_water;
static unsigned replaced_count;
static int installed;

static void handle(int number, siginfo_t *info, void *context) {
  (void)context;
  uintptr_t at = (uintptr_t)info->si_addr;
  int saved = errno;
  int count = __atomic_load_n(&high_water, __ATOMIC_ACQUIRE);
  for (int i = 0; i < count; i++) {
    size_t length = __atomic_load_n(&ranges[i].length, __ATOMIC_ACQUIRE);
    uintptr_t address = ranges[i].address;
    if (length == 0 || at < address || at - address >= length) continue;
    void *p = mmap((void *)address, length, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) break;
    __atomic_store_n(&ranges[i].replaced, 1, __ATOMIC_RELEASE);
    __atomic_fetch_add(&replaced_count, 1, __ATOMIC_RELEASE);
    errno = saved;
    return;
  }
  // Not ours: the access is repeated and ends the process as it would have.
  signal(number, SIG_DFL);
  errno = saved;
}

void linux_bus_guard_install(void) {
  if (__atomic_exchange_n(&installed, 1, __ATOMIC_ACQ_REL)) return;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, NULL);
}

int linux_bus_guard_add(void *address, size_t length) {
  linux_bus_guard_install();
  for (int i = 0; i < LINUX_BUS_GUARD_RANGES; i++) {
    // Claimed by its address, so that two threads never take the same slot.
    uintptr_t free_slot = 0;
    if (!__atomic_compare_exchange_n(&ranges[i].address, &free_slot, (uintptr_t)address, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) continue;
    ranges[i].replaced = 0;
    __atomic_store_n(&ranges[i].length, length, __ATOMIC_RELEASE);
    int seen = __atomic_load_n(&high_water, __ATOMIC_ACQUIRE);
    while (seen < i + 1 && !__atomic_compare_exchange_n(&high_water, &seen, i + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {}
    return i;
  }
  return -ENOSPC;
}

int linux_bus_guard_remove(int slot) {
  if (slot < 0 || slot >= LINUX_BUS_GUARD_RANGES) return 0;
  __atomic_store_n(&ranges[slot].length, 0, __ATOMIC_RELEASE);
  int replaced = __atomic_load_n(&ranges[slot].replaced, __ATOMIC_ACQUIRE);
  __atomic_store_n(&ranges[slot].address, 0, __ATOMIC_RELEASE);
  return replaced;
}

int linux_bus_guard_is_replaced(int slot) {
  return slot >= 0 && slot < LINUX_BUS_GUARD_RANGES && __atomic_load_n(&ranges[slot].replaced, __ATOMIC_ACQUIRE);
}

unsigned linux_bus_guard_replaced(void) { return __atomic_load_n(&replaced_count, __ATOMIC_ACQUIRE); }
