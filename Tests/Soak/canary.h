/* Packets and patterns of the soak's checking instance. */
#ifndef CANARY_H
#define CANARY_H

#include <martlet_channel.h>

#include <arpa/inet.h>
#include <signal.h>

enum { STATE_STARTED = 0, STATE_ATTACHED = 1, STATE_ENDED = 2, STATE_REFUSED = 3, STATE_CLOSED = 4 };
enum packet { PACKET_PROBE, PACKET_ARP_REQUEST, PACKET_ARP_REPLY, PACKET_OTHER, PACKET_CORRUPT, PACKET_FOREIGN };

/* What the file has. soak.py reads it by these places. */
struct counters {
  uint64_t state, id, packets, bytes, probes, replies, sent, others, held, wrong, foreign, corrupt;
  char reason[128], error[512];
};

/* Whoever it is: what it may get, and its canary. */
struct identity {
  uint32_t number;
  uint8_t canary[8];
  uint8_t address[4];
  uint32_t first_port, last_port;
};

/* Bytes of Ethernet, IPv4 and UDP headers, and of those of the soak's own protocol. */
enum { UDP_PAYLOAD = 42, PROBE_HEADER = 24, FLOOD_HEADER = UDP_PAYLOAD + 24, FLOOD_PORT = 7009 };

static const uint8_t canary_magic[4] = {0xca, 0x9a, 0x7f, 0xb1};

static inline int identify(struct identity *own, const char *number, const char *secret, const char *address, const char *first, const char *last) {
  uint32_t word = (uint32_t)strtoul(secret, NULL, 16);
  own->number = (uint32_t)strtoul(number, NULL, 10);
  memcpy(own->canary, canary_magic, 4);
  memcpy(own->canary + 4, &word, 4);
  own->first_port = (uint32_t)strtoul(first, NULL, 10);
  own->last_port = (uint32_t)strtoul(last, NULL, 10);
  return inet_pton(AF_INET, address, own->address) == 1;
}

static inline struct counters *open_counters(const char *path) {
  int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, sizeof(struct counters)) < 0) return NULL;
  void *address = mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return address == MAP_FAILED ? NULL : (struct counters *)address;
}

/* The first bytes of what was wrong, for people. */
static inline void describe(char *text, size_t capacity, const char *what, const uint8_t *bytes, uint32_t length) {
  int used = snprintf(text, capacity, "%s, %u bytes:", what, length);
  for (uint32_t i = 0; i < length && i < 128 && (size_t)used + 3 < capacity; i++) used += snprintf(text + used, capacity - (size_t)used, " %02x", bytes[i]);
}

/* Canaries lie at multiples of 8 from where the memory begins. */

static inline void fill_canary(const struct identity *own, uint8_t *bytes, size_t length) {
  for (size_t at = 0; at < length; at++) bytes[at] = own->canary[at & 7];
}

static inline int is_canary_or_zero(const struct identity *own, const uint8_t *bytes, uint32_t from, uint32_t to) {
  for (uint32_t at = from; at < to; at++) if (bytes[at] != own->canary[at & 7] && bytes[at] != 0) return 0;
  return 1;
}

static inline int has_other_canary(const struct identity *own, const uint8_t *bytes, uint32_t length) {
  const uint8_t *end = bytes + length;
  for (const uint8_t *at = bytes; (at = memmem(at, (size_t)(end - at), canary_magic, 4)) != NULL; at += 4)
    if (end - at >= 8 && memcmp(at + 4, own->canary + 4, 4) != 0) return 1;
  return 0;
}

static inline uint32_t get16(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }
static inline void put16(uint8_t *at, uint32_t value) { at[0] = (uint8_t)(value >> 8); at[1] = (uint8_t)value; }

/* What the far end fills a probe with: words of `martlet pattern` from a place that the probe names. */
static inline int is_pattern(const uint8_t *bytes, uint32_t length, uint64_t offset) {
  for (uint32_t at = 0; at < length; at++) {
    uint64_t position = offset + at, word = position / 8 * 0x9e3779b97f4a7c15ull;
    if (bytes[at] != (uint8_t)(word >> 8 * (position % 8))) return 0;
  }
  return 1;
}

static inline int is_own_port(const struct identity *own, uint32_t port) { return port >= own->first_port && port <= own->last_port; }

/* A probe: "MSKQ", the address and port that it is for, 0, a sequence number, the pattern's offset, the pattern. */
static inline enum packet judge_probe(const struct identity *own, const uint8_t *ip, uint32_t port, const uint8_t *data, uint32_t length) {
  uint64_t offset;
  if (length < PROBE_HEADER || memcmp(data, "MSKQ", 4) != 0) return PACKET_CORRUPT;
  if (memcmp(data + 4, own->address, 4) != 0 || !is_own_port(own, get16(data + 8))) return PACKET_FOREIGN;
  if (memcmp(data + 4, ip + 16, 4) != 0 || get16(data + 8) != port) return PACKET_CORRUPT;
  memcpy(&offset, data + 16, 8);
  return is_pattern(data + PROBE_HEADER, length - PROBE_HEADER, offset) ? PACKET_PROBE : PACKET_CORRUPT;
}

static inline enum packet judge_ipv4(const struct identity *own, const uint8_t *frame, uint32_t length) {
  const uint8_t *ip = frame + 14;
  uint32_t header = (ip[0] & 15u) * 4, total = get16(ip + 2);
  if (length < 34 || 14 + total > length || header < 20 || total < header + 8) return PACKET_CORRUPT;
  /* All hosts. */
  if (memcmp(ip + 16, "\xe0\0\0\1", 4) == 0) return PACKET_OTHER;
  if (memcmp(ip + 16, own->address, 4) != 0) return PACKET_FOREIGN;
  if (ip[9] == 17) {
    uint32_t port = get16(ip + header + 2), udp = get16(ip + header + 4);
    if (!is_own_port(own, port)) return PACKET_FOREIGN;
    if (udp < 8 || header + udp > total) return PACKET_CORRUPT;
    return judge_probe(own, ip, port, ip + header + 8, udp - 8);
  }
  /* Errors, of what this instance has sent. */
  if (ip[9] == 1 && total >= header + 28) return memcmp(ip + header + 8 + 12, own->address, 4) == 0 ? PACKET_OTHER : PACKET_FOREIGN;
  return PACKET_OTHER;
}

/* What a received frame is to this instance. */
static inline enum packet judge(const struct identity *own, const uint8_t *mac, const uint8_t *frame, uint32_t length) {
  if (length < 14) return PACKET_CORRUPT;
  if (!(frame[0] & 1) && memcmp(frame, mac, 6) != 0) return PACKET_FOREIGN;
  switch (get16(frame + 12)) {
  case 0x0800: return judge_ipv4(own, frame, length);
  case 0x0806:
    if (length < 42) return PACKET_CORRUPT;
    if (memcmp(frame + 38, own->address, 4) != 0) return PACKET_FOREIGN;
    return get16(frame + 20) == 1 ? PACKET_ARP_REQUEST : PACKET_ARP_REPLY;
  /* To all nodes. */
  case 0x86dd: return length >= 54 && memcmp(frame + 38, "\xff\2\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16) == 0 ? PACKET_OTHER : PACKET_FOREIGN;
  }
  return PACKET_FOREIGN;
}

static inline void put_checksum(uint8_t *ip) {
  uint32_t sum = 0;
  put16(ip + 10, 0);
  for (int at = 0; at < 20; at += 2) sum += get16(ip + at);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  put16(ip + 10, ~sum & 0xffff);
}

static inline void swap_bytes(uint8_t *a, uint8_t *b, int count) {
  for (int i = 0; i < count; i++) {
    uint8_t byte = a[i];
    a[i] = b[i];
    b[i] = byte;
  }
}

/* A reply: "MSKR", this instance's number, then what the probe had, its pattern replaced by the canary. */
static inline void make_reply(const struct identity *own, uint8_t *frame, uint32_t length) {
  uint8_t *ip = frame + 14, *udp = ip + (ip[0] & 15u) * 4, *data = udp + 8;
  uint32_t bytes = get16(udp + 4) - 8;
  swap_bytes(frame, frame + 6, 6);
  swap_bytes(ip + 12, ip + 16, 4);
  swap_bytes(udp, udp + 2, 2);
  put16(udp + 6, 0);
  memcpy(data, "MSKR", 4);
  memcpy(data + 4, &own->number, 4);
  for (uint32_t at = PROBE_HEADER; at < bytes; at++) data[at] = own->canary[(at - PROBE_HEADER) & 7];
  (void)length;
}

static inline void put_arp(const struct identity *own, const uint8_t *mac, uint8_t *frame, uint32_t operation) {
  memcpy(frame + 6, mac, 6);
  memcpy(frame + 12, "\x08\x06\0\1\x08\0\6\4", 8);
  put16(frame + 20, operation);
  memcpy(frame + 22, mac, 6);
  memcpy(frame + 28, own->address, 4);
}

static inline void make_arp_reply(const struct identity *own, const uint8_t *mac, uint8_t *frame) {
  memcpy(frame, frame + 6, 6);
  memcpy(frame + 32, frame + 22, 10);
  put_arp(own, mac, frame, 2);
}

/* For the far end, whose address ends with 1. */
static inline void make_arp_request(const struct identity *own, const uint8_t *mac, uint8_t *frame) {
  memset(frame, 0xff, 6);
  memset(frame + 32, 0, 6);
  memcpy(frame + 38, own->address, 3);
  frame[41] = 1;
  put_arp(own, mac, frame, 1);
}

/* To the far end's FLOOD_PORT: "MSKF", this instance's number, a sequence number, then canary: what lies in the memory for
   sending stays as it is. */
static inline void make_flood(const struct identity *own, const uint8_t *mac, const uint8_t *far_mac, uint8_t *frame, uint32_t length, uint32_t sequence) {
  uint8_t *ip = frame + 14, *udp = ip + 20;
  memset(frame, 0, UDP_PAYLOAD);
  memcpy(frame, far_mac, 6);
  memcpy(frame + 6, mac, 6);
  put16(frame + 12, 0x0800);
  ip[0] = 0x45;
  put16(ip + 2, length - 14);
  ip[8] = 64;
  ip[9] = 17;
  memcpy(ip + 12, own->address, 4);
  memcpy(ip + 16, own->address, 3);
  ip[19] = 1;
  put_checksum(ip);
  put16(udp, own->first_port > 0 ? own->first_port : 7000);
  put16(udp + 2, FLOOD_PORT);
  put16(udp + 4, length - 34);
  memcpy(udp + 8, "MSKF", 4);
  memcpy(udp + 12, &own->number, 4);
  memcpy(udp + 16, &sequence, 4);
  memset(udp + 20, 0, 4);
}

static inline int flood_is_as_made(const struct identity *own, const uint8_t *frame, uint32_t length) {
  for (uint32_t at = FLOOD_HEADER; at < length; at++) if (frame[at] != own->canary[at & 7]) return 0;
  return 1;
}

#endif
