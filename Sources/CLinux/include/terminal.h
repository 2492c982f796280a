// A terminal in raw mode, and signals to be read.
#pragma once
#include "syscalls.h"
#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

/// Takes a terminal out of line mode and turns its echo off; Ctrl-C stays a signal. A crash of this process puts all back,
/// after having written `leave`. Returns 0 or -errno.
int linux_enter_raw_mode(int fd, struct termios *_Nonnull before, const char *_Nonnull leave);

/// Columns and rows of a terminal. Returns 0 or -errno.
LINUX_CALL int linux_terminal_size(int fd, int *_Nonnull columns, int *_Nonnull rows) {
  struct winsize size = {0};
  if (ioctl(fd, TIOCGWINSZ, &size) < 0) return -errno;
  *columns = size.ws_col;
  *rows = size.ws_row;
  return 0;
}

/// Blocks signals in this thread and returns a descriptor that they are read from, or -errno.
LINUX_CALL int linux_signal_descriptor(const int *_Nonnull signals, int count) {
  sigset_t set;
  sigemptyset(&set);
  for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
  if (sigprocmask(SIG_BLOCK, &set, NULL) < 0) return -errno;
  return linux_result(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

/// The number of the next signal from such a descriptor, or 0.
LINUX_CALL int linux_next_signal(int fd) {
  struct signalfd_siginfo info;
  return read(fd, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}
