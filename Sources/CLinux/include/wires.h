// What the far ends of an emulated wire need beside tap.h: the offloads of a TAP interface, and descriptors for signals.
#pragma once
#include "tap.h"
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

/// Puts an open TAP descriptor into the form that linux_open_tap gives it: header of 12 bytes, little-endian, not
/// blocking. Returns -errno where it is no TAP with a virtio-net header.
LINUX_CALL int linux_adopt_tap(int fd) {
  struct ifreq r;
  memset(&r, 0, sizeof r);
  if (ioctl(fd, TUNGETIFF, &r) < 0) return -errno;
  if (!(r.ifr_flags & IFF_TAP) || !(r.ifr_flags & IFF_VNET_HDR) || !(r.ifr_flags & IFF_NO_PI)) return -EMEDIUMTYPE;
  int header = 12, little = 1;
  if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 || ioctl(fd, TUNSETVNETLE, &little) < 0) return -errno;
  int flags = fcntl(fd, F_GETFL);
  return linux_result(fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

/// What frames read from a TAP descriptor may need: TUN_F_CSUM and the kinds of segmentation.
LINUX_CALL int linux_set_tap_offloads(int fd, int checksum, int tcp4, int tcp6) {
  unsigned flags = checksum ? TUN_F_CSUM : 0;
  if (checksum && tcp4) flags |= TUN_F_TSO4;
  if (checksum && tcp6) flags |= TUN_F_TSO6;
  return linux_result(ioctl(fd, TUNSETOFFLOAD, (unsigned long)flags));
}

/// Blocks SIGINT and SIGTERM in this thread and returns a descriptor that becomes readable with them, or -errno.
LINUX_CALL int linux_termination_descriptor(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  if (sigprocmask(SIG_BLOCK, &set, NULL) < 0) return -errno;
  return linux_result(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

/// readv(2) and writev(2) in one datagram or frame; MSG_TRUNC makes recvmsg(2) return a datagram's whole length.
LINUX_CALL long linux_receive_pieces(int socket, const struct iovec *_Nonnull pieces, int count) {
  struct msghdr m = {.msg_iov = (struct iovec *)pieces, .msg_iovlen = (size_t)count};
  long r = recvmsg(socket, &m, MSG_DONTWAIT | MSG_TRUNC);
  return r < 0 ? -errno : r;
}
LINUX_CALL long linux_send_pieces(int socket, const struct iovec *_Nonnull pieces, int count) {
  struct msghdr m = {.msg_iov = (struct iovec *)pieces, .msg_iovlen = (size_t)count};
  long r = sendmsg(socket, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
  return r < 0 ? -errno : r;
}

/// Waits until a descriptor is readable, or for so many nanoseconds, less than a second: as ppoll(2) returns.
LINUX_CALL int linux_wait_readable(int fd, long nanoseconds) {
  struct timespec t = {.tv_sec = 0, .tv_nsec = nanoseconds};
  struct pollfd p = {.fd = fd, .events = POLLIN};
  return linux_result(syscall(SYS_ppoll, &p, 1, &t, NULL, 0));
}

/// Waits until one of some descriptors is readable, or for so many nanoseconds: as ppoll(2) returns. Descriptors below 0 are
/// left out.
LINUX_CALL int linux_await_any(struct pollfd *_Nonnull p, nfds_t count, uint64_t nanoseconds) {
  struct timespec t = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
  return linux_result(syscall(SYS_ppoll, p, count, &t, NULL, 0));
}

/// A socket for all frames of an interface, whatever their destination. Returns it, or -errno.
LINUX_CALL int linux_open_frame_socket(const char *_Nonnull name) {
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  int index = (int)if_nametoindex(name), bytes = 8 << 20;
  struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = index};
  struct packet_mreq all = {.mr_ifindex = index, .mr_type = PACKET_MR_PROMISC};
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  if (index == 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
      setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) < 0) {
    int error = index == 0 ? ENODEV : errno;
    close(fd);
    return -error;
  }
  return fd;
}

/// Sets an interface of this network namespace up. Returns 0 or -errno.
LINUX_CALL int linux_set_interface_up(const char *_Nonnull name) {
  struct ifreq r;
  if (strlen(name) >= IFNAMSIZ) return -ENAMETOOLONG;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  memset(&r, 0, sizeof r);
  strcpy(r.ifr_name, name);
  int result = 0;
  if (ioctl(fd, SIOCGIFFLAGS, &r) < 0) result = -errno;
  r.ifr_flags |= IFF_UP | IFF_RUNNING;
  if (result == 0 && ioctl(fd, SIOCSIFFLAGS, &r) < 0) result = -errno;
  close(fd);
  return result;
}

/// unshare(2) with CLONE_NEWNET: this thread, and no other, goes on in an empty network namespace.
LINUX_CALL int linux_unshare_network(void) { return linux_result(syscall(SYS_unshare, 0x40000000L)); }
