#include "raw_device.h"

struct split_used { uint32_t id, length; };
struct packed_descriptor { uint64_t address; uint32_t length; uint16_t id, flags; };

uint32_t raw_device_use_split(struct raw_device *device, uint32_t limit, uint32_t length) {
  const uint16_t *available = device->driver_area;
  uint16_t *words = device->device_area;
  struct split_used *used = (void *)(words + 2);
  uint16_t index = __atomic_load_n(&available[1], __ATOMIC_ACQUIRE), mask = device->size - 1;
  uint32_t count = (uint16_t)(index - device->next);
  if (count > limit) count = limit;
  for (uint32_t i = 0; i < count; i++, device->next++) {
    uint16_t slot = device->next & mask;
    used[slot] = (struct split_used){available[2 + slot], length};
  }
  __atomic_store_n(&words[1], device->next, __ATOMIC_RELEASE);
  // The event index (2.7.10), behind the elements; the flag says the same where it was not agreed.
  *(uint16_t *)(used + device->size) = (uint16_t)(index + 0x4000);
  words[0] = 1;
  return count;
}

uint32_t raw_device_use_packed(struct raw_device *device, uint32_t limit, uint32_t length) {
  struct packed_descriptor *ring = device->descriptors;
  uint16_t *event = device->device_area;
  uint32_t count = 0;
  event[1] = 1;  // no notifications (2.8.10)
  while (count < limit) {
    struct packed_descriptor *first = &ring[device->next], *last = first;
    uint16_t flags = __atomic_load_n(&first->flags, __ATOMIC_ACQUIRE);
    if (((flags >> 7) & 1) != device->wrap || ((flags >> 15) & 1) == device->wrap) break;
    uint16_t taken = 1;
    while (last->flags & 1) {
      last = last + 1 == ring + device->size ? ring : last + 1;
      taken++;
    }
    first->id = last->id;
    first->length = length;
    uint16_t done = (device->wrap ? 0x8080 : 0) | (length ? 2 : 0);
    device->next += taken;
    if (device->next >= device->size) {
      device->next -= device->size;
      device->wrap ^= 1;
    }
    __atomic_store_n(&first->flags, done, __ATOMIC_RELEASE);
    count++;
  }
  return count;
}
