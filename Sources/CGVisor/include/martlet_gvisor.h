// What a Martlet instance and the library that `make gvisor` builds from Go/ say to each other.
#pragma once
#include <stdint.h>

// A piece of a received packet, or the room for one that is sent.
struct gvisor_piece {
  void *address;
  uint32_t length;  // bytes
  uint32_t flags;
};

// Received: another piece of the same packet follows.
#define GVISOR_MORE 1
// Received, on a packet's last piece: the device has checked the sums.
#define GVISOR_CHECKED 2

// What both sides look at without a call.
struct gvisor_shared {
  uint32_t waiting;  // packets wait to be sent
  uint32_t asleep;   // the other side wants its event to be rung for them
};

struct gvisor_configuration {
  uint8_t mac[6];
  uint16_t port;  // of the HTTP server; 0 for none
  uint32_t mtu;
  uint32_t address;  // in host byte order
  uint32_t prefix_length;
  uint32_t gateway;  // 0 for none
  int32_t event;     // an eventfd
};

// The functions of the library.
struct gvisor_functions {
  // Starts the stack, once in a process. Returns 0, or -1 and writes why, ended by a zero.
  int (*start)(struct gvisor_configuration *, struct gvisor_shared *, char *reason, uint32_t room);
  // Whole packets; each is copied before this returns.
  void (*receive)(struct gvisor_piece *, uint32_t count);
  // Copies packets that wait into the given rooms, one each, and says each one's length. Returns how many there were:
  // fewer than rooms means that none is left. A packet that is longer than its room is given length 0.
  uint32_t (*send)(struct gvisor_piece *, uint32_t count);
};

// Loads the library. Returns NULL, or why it cannot, until the next call.
const char *gvisor_load(const char *path, struct gvisor_functions *functions);
