// lwIP as a stack instance uses it. Each choice with its reason.
#pragma once
#include <stdint.h>
// lwIP compares 16-bit lengths with the large windows below: always false, and meant.
#pragma clang diagnostic ignored "-Wtautological-constant-out-of-range-compare"

// The instance's own loop calls input, output and timers: no threads, no locks.
#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_TIMERS 1

// Received segments are wrapped where they lie, and sent data stays where the application wrote it.
#define LWIP_SUPPORT_CUSTOM_PBUF 1
#define LWIP_NETIF_TX_SINGLE_PBUF 0

// Headers are made in lwIP's heap: it lies in the arena's transmit part, so that the device can read them.
extern uint8_t *martlet_heap;
#define LWIP_RAM_HEAP_POINTER martlet_heap
#define MEM_SIZE (8 << 20)

#define MEM_ALIGNMENT 64
// Nothing is received into pools of lwIP's own.
#define PBUF_POOL_SIZE 16
#define PBUF_POOL_BUFSIZE 1600

// Windows that fill a fast link at a millisecond: 2 MiB, scaled by 2^6.
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 6
#define TCP_WND (2 << 20)
#define TCP_MSS 1460
#define TCP_SND_BUF (2 << 20)
// Twice the pieces that a full send buffer has: a header and payload for each segment.
#define TCP_SND_QUEUELEN ((4 * TCP_SND_BUF) / TCP_MSS)
#define TCP_SNDLOWAT 32768
// lwIP checks the window against pools that nothing is received into here.
#define LWIP_DISABLE_TCP_SANITY_CHECKS 1
#define TCP_SNDQUEUELOWAT (TCP_SND_QUEUELEN / 4)
#define MEMP_NUM_TCP_SEG 16384
#define MEMP_NUM_PBUF 16384
#define MEMP_NUM_TCP_PCB 256
#define MEMP_NUM_TCP_PCB_LISTEN 16
#define MEMP_NUM_UDP_PCB 16
#define MEMP_NUM_SYS_TIMEOUT 32
#define TCP_LISTEN_BACKLOG 1
#define TCP_DEFAULT_LISTEN_BACKLOG 128
#define TCP_QUEUE_OOSEQ 1
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_TIMESTAMPS 0
#define TCP_OVERSIZE 0

// The device does sums where it can; where it cannot, lwIP does: decided for each interface.
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define LWIP_CHECKSUM_ON_COPY 0

#define LWIP_ETHERNET 1
#define LWIP_ARP 1
#define ETH_PAD_SIZE 0
#define ARP_QUEUEING 1
#define LWIP_IPV4 1
#define LWIP_IPV6 1
#define LWIP_ICMP 1
#define LWIP_ICMP6 1
#define LWIP_TCP 1
#define LWIP_UDP 1
#define LWIP_RAW 1
#define LWIP_DHCP 0
#define LWIP_DNS 0
#define IP_REASSEMBLY 1
#define IP_FRAG 1
// Payload by reference is copied where a packet waits for its neighbour's address: the queue there outlives connections, and
// nothing says when it lets go. A packet on its way to the device has references of its own.
#define PBUF_NEEDS_COPY(p) (!((p)->type_internal & PBUF_TYPE_FLAG_STRUCT_DATA_CONTIGUOUS))
// Its bookkeeping is larger than a fragment header where pointers have 64 bits.
#define IPV6_FRAG_COPYHEADER 1
#define LWIP_IPV6_MLD 1
#define LWIP_IPV6_AUTOCONFIG 1
#define LWIP_SINGLE_NETIF 1
#define LWIP_NETIF_LINK_CALLBACK 0
#define LWIP_NETIF_STATUS_CALLBACK 0
// Statistics are the instance's own.
#define LWIP_STATS 0
// pbufs are counted by more than a byte's worth of holders: a payload may be in many packets.
#define LWIP_PBUF_REF_T uint16_t
