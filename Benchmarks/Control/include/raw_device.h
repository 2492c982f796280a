// The device's side of one virtqueue, as bare as it can be: it trusts the driver and touches no buffer. Both the Swift
// and the C loops run against it, so what it costs is the same for both; instruction counts leave it out by its name.
#pragma once
#include <stdint.h>

struct raw_device {
  // Invariant: the three parts of a ring of `size` descriptors (virtio 1.2, 2.6), mapped as long as the ring is used.
  void *_Nullable descriptors;
  void *_Nullable driver_area;
  void *_Nullable device_area;
  uint16_t size;
  uint16_t next;
  uint16_t wrap;
};

/// Marks up to `limit` available buffers of a split ring as used, each with `length` bytes written, and asks for no
/// notification in the next 16384. Returns how many.
uint32_t raw_device_use_split(struct raw_device *_Nonnull device, uint32_t limit, uint32_t length);

/// The same for a packed ring (2.8): `length` 0 for buffers that the device only reads.
uint32_t raw_device_use_packed(struct raw_device *_Nonnull device, uint32_t limit, uint32_t length);
