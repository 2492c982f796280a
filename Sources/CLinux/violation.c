#define _GNU_SOURCE
#include "violation.h"
#include <signal.h>
#include <ucontext.h>

// What has made the call may be hostile, and other threads of its own may write to all that this process can write to. So
// the handler calls no function, returns never and loops by constants: whoever changes its memory changes the message only.
static int report_socket = -1;

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#define ARGUMENT(context, i) ((uint64_t)(context)->uc_mcontext.gregs[(int[]){REG_RDI, REG_RSI, REG_RDX}[i]])
ALWAYS_INLINE long raw_call(long number, long a, const void *b, long c, long d) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = 0;
  register long r9 __asm__("r9") = 0;
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
#define ARGUMENT(context, i) ((uint64_t)(context)->uc_mcontext.regs[i])
ALWAYS_INLINE long raw_call(long number, long a, const void *b, long c, long d) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register const void *x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = 0;
  register long x5 __asm__("x5") = 0;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}
#else
#error "how is a system call made here, and which registers hold its arguments?"
#endif

ALWAYS_INLINE void put_hexadecimal(volatile char *at, uint64_t value, int digits) {
#pragma clang loop unroll(full)
  for (int i = 0; i < digits; i++) {
    unsigned digit = value >> 4 * (digits - 1 - i) & 15;
    at[i] = (char)(digit < 10 ? '0' + digit : 'a' + digit - 10);
  }
}

static void handle(int number, siginfo_t *info, void *context) {
  (void)number;
  char text[] = "violation arch=00000000 number=00000000 arguments=0000000000000000,0000000000000000,0000000000000000";
  put_hexadecimal(text + 15, info->si_arch, 8);
  put_hexadecimal(text + 31, (unsigned)info->si_syscall, 8);
  const ucontext_t *machine = context;
  put_hexadecimal(text + 50, ARGUMENT(machine, 0), 16);
  put_hexadecimal(text + 67, ARGUMENT(machine, 1), 16);
  put_hexadecimal(text + 84, ARGUMENT(machine, 2), 16);
  if (info->si_code == 1 /* SYS_SECCOMP */) raw_call(SYS_sendto, report_socket, text, sizeof text - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  // No filter of ours allows this one. With the handler gone and the signal blocked the kernel ends the process itself.
  for (;;) raw_call(SYS_kcmp, 0, NULL, 0, 0);
}

int linux_report_violations(int socket) {
  report_socket = socket;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handle;
  // The handler is gone once it has been entered.
  action.sa_flags = SA_SIGINFO | (int)SA_RESETHAND;
  sigfillset(&action.sa_mask);
  return linux_result(sigaction(SIGSYS, &action, NULL));
}
