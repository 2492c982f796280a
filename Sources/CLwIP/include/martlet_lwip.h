// lwIP for Swift: what is a macro there, and received segments as custom pbufs.
#pragma once
#include <string.h>
#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/init.h"
#include "lwip/ip.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/raw.h"
#include "lwip/icmp.h"
#include "lwip/inet_chksum.h"
#include "lwip/tcp.h"
#include "lwip/timeouts.h"
#include "lwip/udp.h"
#include "netif/ethernet.h"

/// Says where lwIP's heap begins, before lwip_init().
void martlet_set_heap(void *_Nonnull start);
/// Bytes that lwIP uses there.
static inline size_t martlet_heap_bytes(void) { return MEM_SIZE + 4096; }

/// Prepares wrappers for so many receive segments; once.
int martlet_prepare_wrappers(uint32_t count, uint32_t units_per_segment);
/// Wraps `length` bytes at `payload`, which lie in the segment at `unit`; NULL where there is no such segment.
struct pbuf *_Nullable martlet_wrap(uint32_t unit, void *_Nonnull payload, uint16_t length);
/// Takes one segment whose wrapper lwIP has let go of; 0 when there is none.
int martlet_take_freed(uint32_t *_Nonnull unit);

static inline void martlet_set_ipv4(struct netif *_Nonnull n, uint32_t address, uint32_t mask, uint32_t gateway) {
  ip4_addr_t a = {lwip_htonl(address)}, m = {lwip_htonl(mask)}, g = {lwip_htonl(gateway)};
  netif_set_addr(n, &a, &m, &g);
}
/// One more address, its halves in network order. Returns ERR_VAL where the interface has no room for it.
static inline err_t martlet_add_ipv6(struct netif *_Nonnull n, uint64_t high, uint64_t low) {
  ip6_addr_t a;
  memset(&a, 0, sizeof a);
  memcpy(&a.addr[0], &high, 8);
  memcpy(&a.addr[2], &low, 8);
  ip6_addr_assign_zone(&a, IP6_UNICAST, n);
  return netif_add_ip6_address(n, &a, NULL);
}
/// No addresses from router advertisements.
static inline void martlet_forbid_autoconfiguration(struct netif *_Nonnull n) { netif_set_ip6_autoconfig_enabled(n, 0); }
static inline uint32_t martlet_pbuf_total(const struct pbuf *_Nonnull p) { return p->tot_len; }
static inline void martlet_set_checksums(struct netif *_Nonnull n, uint16_t flags) { NETIF_SET_CHECKSUM_CTRL(n, flags); }
static inline err_t martlet_input(struct netif *_Nonnull n, struct pbuf *_Nonnull p) { return n->input(p, n); }
static inline struct tcp_pcb *_Nullable martlet_listen(uint16_t port) {
  struct tcp_pcb *p = tcp_new_ip_type(IPADDR_TYPE_ANY);
  if (!p) return NULL;
  if (tcp_bind(p, IP_ANY_TYPE, port) != ERR_OK) { tcp_close(p); return NULL; }
  return tcp_listen(p);
}
static inline uint32_t martlet_send_room(const struct tcp_pcb *_Nonnull p) { return tcp_sndbuf(p); }
/// Whether received bytes wait for the application: a close is a reset then.
static inline int martlet_has_unread(const struct tcp_pcb *_Nonnull p) { return p->refused_data || p->rcv_wnd != TCP_WND_MAX(p); }
static inline void martlet_disable_nagle(struct tcp_pcb *_Nonnull p) { tcp_nagle_disable(p); }
static inline struct tcp_pcb *_Nullable martlet_connect(uint32_t address, uint16_t port, tcp_connected_fn _Nonnull connected, err_t *_Nonnull result) {
  struct tcp_pcb *p = tcp_new_ip_type(IPADDR_TYPE_V4);
  if (!p) { *result = ERR_MEM; return NULL; }
  ip_addr_t to = IPADDR4_INIT(lwip_htonl(address));
  *result = tcp_connect(p, &to, port, connected);
  return p;
}
