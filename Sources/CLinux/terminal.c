#include "terminal.h"
#include <string.h>

// The terminal as it was, and what is written to it before it is that again: for a process that crashes.
static struct {
  int fd;
  struct termios before;
  char leave[64];
} terminal;

static void leave(int number) {
  // Only calls that a signal handler may make.
  long n = write(terminal.fd, terminal.leave, strlen(terminal.leave));
  (void)n;
  tcsetattr(terminal.fd, TCSANOW, &terminal.before);
  signal(number, SIG_DFL);
  raise(number);
}

int linux_enter_raw_mode(int fd, struct termios *before, const char *leaving) {
  if (tcgetattr(fd, before) < 0) return -errno;
  terminal.fd = fd;
  terminal.before = *before;
  strncpy(terminal.leave, leaving, sizeof terminal.leave - 1);
  const int crashes[] = {SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGBUS, SIGSEGV};
  for (unsigned i = 0; i < sizeof crashes / sizeof *crashes; i++) signal(crashes[i], leave);
  struct termios raw = *before;
  raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | IEXTEN);
  raw.c_iflag &= ~(tcflag_t)(IXON | ICRNL | INLCR);
  raw.c_cc[VMIN] = 0;
  raw.c_cc[VTIME] = 0;
  return tcsetattr(fd, TCSAFLUSH, &raw) < 0 ? -errno : 0;
}
