// TAP interfaces (Linux, Documentation/networking/tuntap.rst).
#pragma once
#include "syscalls.h"
#include <linux/if_tun.h>
#include <net/if.h>

/// Opens a TAP interface with a virtio-net header of 12 bytes before each frame; makes it where it does not exist, for
/// as long as the descriptor is open. Returns the descriptor or -errno.
LINUX_CALL int linux_open_tap(const char *_Nonnull name) {
  if (strlen(name) >= IFNAMSIZ) return -ENAMETOOLONG;
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return -errno;
  struct ifreq r;
  memset(&r, 0, sizeof r);
  strcpy(r.ifr_name, name);
  r.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  int header = 12, little = 1;
  if (ioctl(fd, TUNSETIFF, &r) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 || ioctl(fd, TUNSETVNETLE, &little) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}
