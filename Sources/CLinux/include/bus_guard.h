// Shared mappings whose file another process can make shorter: an access past the new end raises SIGBUS. While a range
// is guarded, the handler puts zeroed private memory in its place and notes it, and the access goes on.
#pragma once
#include "syscalls.h"

#define LINUX_BUS_GUARD_RANGES 16384

/// Takes SIGBUS. Before a process gives up the right to take signals; ``linux_bus_guard_add`` does it too.
void linux_bus_guard_install(void);
/// Guards [address, address + length), whole pages of one mapping. Returns a slot, or -ENOSPC.
int linux_bus_guard_add(void *_Nonnull address, size_t length);
/// Ends the guard, before the range is unmapped. Returns 1 where its memory was replaced.
int linux_bus_guard_remove(int slot);
/// Whether the memory of a guarded range was replaced.
int linux_bus_guard_is_replaced(int slot);
/// How many ranges were replaced since the process began.
unsigned linux_bus_guard_replaced(void);
