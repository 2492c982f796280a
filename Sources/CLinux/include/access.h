// Volatile register access and the atomics that shared rings need. Each function is one
// instruction on x86-64 and is inlined into Swift.
#pragma once
#include <stdint.h>

#define LINUX_HOT static inline __attribute__((always_inline, swift_attr("@_noLocks")))

LINUX_HOT uint8_t volatile_load8(const void *_Nonnull p) { return *(const volatile uint8_t *)p; }
LINUX_HOT uint16_t volatile_load16(const void *_Nonnull p) { return *(const volatile uint16_t *)p; }
LINUX_HOT uint32_t volatile_load32(const void *_Nonnull p) { return *(const volatile uint32_t *)p; }
LINUX_HOT uint64_t volatile_load64(const void *_Nonnull p) { return *(const volatile uint64_t *)p; }
LINUX_HOT void volatile_store8(void *_Nonnull p, uint8_t v) { *(volatile uint8_t *)p = v; }
LINUX_HOT void volatile_store16(void *_Nonnull p, uint16_t v) { *(volatile uint16_t *)p = v; }
LINUX_HOT void volatile_store32(void *_Nonnull p, uint32_t v) { *(volatile uint32_t *)p = v; }
LINUX_HOT void volatile_store64(void *_Nonnull p, uint64_t v) { *(volatile uint64_t *)p = v; }

// A relaxed load is done exactly once: what it returns may be checked and then used.
LINUX_HOT uint16_t relaxed_load16(const void *_Nonnull p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED); }
LINUX_HOT uint32_t relaxed_load32(const void *_Nonnull p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED); }
LINUX_HOT uint64_t relaxed_load64(const void *_Nonnull p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED); }
LINUX_HOT void relaxed_store16(void *_Nonnull p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELAXED); }
LINUX_HOT void relaxed_store32(void *_Nonnull p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED); }
LINUX_HOT void relaxed_store64(void *_Nonnull p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED); }
LINUX_HOT uint16_t acquire_load16(const void *_Nonnull p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE); }
LINUX_HOT uint32_t acquire_load32(const void *_Nonnull p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE); }
LINUX_HOT uint64_t acquire_load64(const void *_Nonnull p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_ACQUIRE); }
LINUX_HOT void release_store16(void *_Nonnull p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE); }
LINUX_HOT void release_store32(void *_Nonnull p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELEASE); }
LINUX_HOT void release_store64(void *_Nonnull p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELEASE); }
LINUX_HOT uint32_t atomic_add32(void *_Nonnull p, uint32_t v) { return __atomic_fetch_add((uint32_t *)p, v, __ATOMIC_ACQ_REL); }
LINUX_HOT uint64_t atomic_add64(void *_Nonnull p, uint64_t v) { return __atomic_fetch_add((uint64_t *)p, v, __ATOMIC_ACQ_REL); }
LINUX_HOT uint32_t atomic_subtract32(void *_Nonnull p, uint32_t v) { return __atomic_fetch_sub((uint32_t *)p, v, __ATOMIC_ACQ_REL); }
LINUX_HOT uint32_t atomic_exchange32(void *_Nonnull p, uint32_t v) { return __atomic_exchange_n((uint32_t *)p, v, __ATOMIC_ACQ_REL); }
LINUX_HOT int atomic_compare_exchange64(void *_Nonnull p, uint64_t expected, uint64_t desired) { return __atomic_compare_exchange_n((uint64_t *)p, &expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE); }
LINUX_HOT void full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
LINUX_HOT void acquire_fence(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
LINUX_HOT void release_fence(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
// The compiler moves no access across it; the processor may. Of a process that is killed, others find a prefix of what it
// wrote, in its own order.
LINUX_HOT void compiler_fence(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
LINUX_HOT void cpu_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
LINUX_HOT void prefetch(const void *_Nonnull p) { __builtin_prefetch(p, 0, 3); }
