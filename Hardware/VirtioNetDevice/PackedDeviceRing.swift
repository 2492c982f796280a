import CLinux
import EmulatedPCI
import Glibc
import Virtio

/// The device's side of a packed virtqueue (virtio 1.2, 2.8). Looks at each descriptor once when it has become available,
/// and records what is forbidden.
struct PackedDeviceRing {
  /// A descriptor's number and the wrap counter of its round (2.8.1).
  struct Place {
    var index = 0
    var wrap = true

    mutating func advance(_ count: Int, _ size: Int) {
      index += count
      if index >= size {
        index -= size
        wrap.toggle()
      }
    }

    init() {}

    /// - Returns: nil outside a ring of `size`.
    init?(_ event: UInt32, _ size: Int) {
      index = Int(event & 0x7fff)
      wrap = event >> 15 != 0
      if index >= size { return nil }
    }

    /// As an event suppression structure has it (2.8.14).
    var event: UInt32 { UInt32(index) | (wrap ? 1 << 15 : 0) }
  }

  /// A chain that the driver has made available.
  private struct Available {
    var start: Place
    var descriptors: Int
    var id: UInt16
    /// The second half of its first descriptor, as it was then.
    var word: UInt64
  }

  private struct Memory {
    var descriptors: UnsafeMutableRawPointer
    var driverEvents: UnsafeMutableRawPointer
    var deviceEvents: UnsafeMutableRawPointer
  }

  let size: Int
  let usesEventIndex: Bool
  private var memory: Memory?
  private var generation: UInt64 = .max
  /// Chains that were seen, those from `taken` on not taken yet; and where the search for more goes on.
  private var seen: [Available] = []
  private var taken = 0
  private var next = Place()
  /// Ids of chains that are available or taken, and not used, and their descriptors.
  private var held: Set<UInt16> = []
  private var heldDescriptors = 0
  private(set) var nextUsed = Place()
  /// Descriptors used since the driver was last asked whether it wants an interrupt.
  private var unsignalled = 0
  private(set) var isBroken = false

  init(size: Int, usesEventIndex: Bool) {
    self.size = size
    self.usesEventIndex = usesEventIndex
  }

  /// Where the ring goes on: what was seen and not taken is seen again.
  var base: UInt32 {
    let available = taken < seen.count ? seen[taken].start : next
    return available.event | nextUsed.event << 16
  }

  /// - Returns: false where the ring has no such places.
  mutating func resume(at base: UInt32) -> Bool {
    guard let available = Place(base & 0xffff, size), let used = Place(base >> 16, size) else {
      return false
    }
    next = available
    nextUsed = used
    return true
  }

  /// Finds the ring's memory, again whenever the mappings have changed.
  private mutating func locate(_ queue: DeviceQueue.Addresses, _ iommu: CheckedIOMMU)
    -> Bool
  {
    if memory != nil && generation == iommu.generation { return true }
    memory = nil
    guard
      let ring = iommu.pointer(queue.descriptors, byteCount: size * 16, .write),
      let driver = iommu.pointer(queue.driver, byteCount: PackedRing.eventBytes, .read),
      let device = iommu.pointer(queue.device, byteCount: PackedRing.eventBytes, .write)
    else { return false }
    memory = Memory(descriptors: ring, driverEvents: driver, deviceEvents: device)
    generation = iommu.generation
    return true
  }

  // MARK: Available

  /// Chains that the driver has made available and the device has not taken.
  mutating func pending(
    _ addresses: DeviceQueue.Addresses, _ iommu: CheckedIOMMU, _ record: inout ViolationRecord
  ) -> Int {
    guard !isBroken, locate(addresses, iommu), let memory else { return 0 }
    while let chain = look(memory, &record) {
      if !held.insert(chain.id).inserted {
        record.add("2.8.21.1", "buffer id \(chain.id) is given to two buffers at once")
      }
      seen.append(chain)
      heldDescriptors += chain.descriptors
      next.advance(chain.descriptors, size)
    }
    return isBroken ? 0 : seen.count - taken
  }

  /// The chain at `next`, where there is one.
  private mutating func look(_ memory: Memory, _ record: inout ViolationRecord) -> Available? {
    if heldDescriptors >= size { return nil }
    var place = next
    var flags = acquire_load16(memory.descriptors + place.index * 16 + 14)
    if isUsed(flags, place) {
      record.add("2.8.1", "the driver marks descriptor \(place.index) as used")
      isBroken = true
    }
    if !isAvailable(flags, place) { return nil }
    let start = place
    let word = relaxed_load64(memory.descriptors + place.index * 16 + 8)
    var last = word
    var count = 1
    while flags & PackedRing.next != 0 {
      if count == size {
        record.add("2.8.17", "a list is longer than its ring of \(size)")
        isBroken = true
        return nil
      }
      place.advance(1, size)
      count += 1
      last = relaxed_load64(memory.descriptors + place.index * 16 + 8)
      flags = UInt16(truncatingIfNeeded: last >> 48)
      if !isAvailable(flags, place) {
        record.add("2.8.17", "a list was made available before its descriptor \(place.index)")
        isBroken = true
        return nil
      }
    }
    return Available(
      start: start, descriptors: count, id: UInt16(truncatingIfNeeded: last >> 32), word: word)
  }

  private func isAvailable(_ flags: UInt16, _ place: Place) -> Bool {
    (flags & PackedRing.available != 0) == place.wrap
      && (flags & PackedRing.used != 0) != place.wrap
  }

  private func isUsed(_ flags: UInt16, _ place: Place) -> Bool {
    (flags & PackedRing.available != 0) == place.wrap
      && (flags & PackedRing.used != 0) == place.wrap
  }

  /// Reads the chain that is `ahead` places after the next one; nothing is taken.
  mutating func read(
    _ chain: inout DeviceQueue.Chain, ahead: Int, iommu: CheckedIOMMU, features: VirtioFeatures,
    _ record: inout ViolationRecord
  ) -> Bool {
    guard let memory, taken + ahead < seen.count else { return false }
    let available = seen[taken + ahead]
    chain.begin(head: available.id, descriptors: available.descriptors)
    var place = available.start
    for count in 0..<available.descriptors {
      let address = relaxed_load64(memory.descriptors + place.index * 16)
      let word = relaxed_load64(memory.descriptors + place.index * 16 + 8)
      if count == 0 && word != available.word {
        record.add(
          "2.8.16", "descriptor \(place.index) was changed after it was made available")
      }
      let flags = UInt16(truncatingIfNeeded: word >> 48)
      let byteCount = Int(UInt32(truncatingIfNeeded: word))
      let isGood =
        flags & PackedRing.indirect != 0
        ? follow(
          &chain, address, byteCount, isAlone: available.descriptors == 1, features, iommu, &record)
        : chain.add(
          address, byteCount, isWritable: flags & PackedRing.write != 0, "2.8.17", iommu, &record)
      if !isGood {
        isBroken = true
        return false
      }
      place.advance(1, size)
    }
    return true
  }

  private func follow(
    _ chain: inout DeviceQueue.Chain, _ address: UInt64, _ byteCount: Int, isAlone: Bool,
    _ features: VirtioFeatures, _ iommu: CheckedIOMMU, _ record: inout ViolationRecord
  ) -> Bool {
    if !features.contains(.indirectDescriptors) {
      record.add("2.8.19", "an indirect descriptor although that was not agreed")
      return false
    }
    if !isAlone {
      record.add("2.8.19", "an indirect descriptor in a list")
      return false
    }
    if byteCount == 0 || byteCount % 16 != 0 || byteCount / 16 > size {
      record.add("2.8.19", "an indirect table of \(byteCount) bytes")
      return false
    }
    guard let table = iommu.pointer(address, byteCount: byteCount, .read) else { return false }
    for entry in 0..<byteCount / 16 {
      let address = relaxed_load64(table + entry * 16)
      let word = relaxed_load64(table + entry * 16 + 8)
      let flags = UInt16(truncatingIfNeeded: word >> 48)
      if flags & ~PackedRing.write != 0 {
        record.add("2.8.19", "an indirect entry with flags \(flags)")
      }
      let isGood = chain.add(
        address, Int(UInt32(truncatingIfNeeded: word)), isWritable: flags & PackedRing.write != 0,
        "2.8.17", iommu, &record)
      if !isGood { return false }
    }
    return true
  }

  /// Takes the next `count` chains: they have been read, and will be used.
  mutating func take(_ count: Int) {
    taken += count
    if taken > 256 {
      seen.removeFirst(taken)
      taken = 0
    }
  }

  // MARK: Used

  /// Writes used descriptors, one for each group; the first one last, so that the driver never sees a part (2.8.9).
  /// - Parameter isOfWrongRound: a faulty device marks them with the other wrap counter.
  mutating func publish(_ groups: [DeviceQueue.UsedGroup], isOfWrongRound: Bool = false) {
    guard let memory else { return }
    var places: [Place] = []
    for group in groups {
      places.append(nextUsed)
      nextUsed.advance(group.descriptors, size)
      unsignalled += group.descriptors
      heldDescriptors -= group.descriptors
      for id in group.ids { held.remove(id) }
    }
    for (group, place) in zip(groups, places).reversed() {
      let at = memory.descriptors + place.index * 16
      relaxed_store32(at + 8, UInt32(truncatingIfNeeded: group.byteCount))
      relaxed_store16(at + 12, group.named)
      let marks = place.wrap != isOfWrongRound ? PackedRing.available | PackedRing.used : 0
      release_store16(at + 14, marks | (group.byteCount > 0 ? PackedRing.write : 0))
    }
  }

  /// Whether the driver wants an interrupt for what was used since the last one (2.8.10).
  mutating func wantsInterrupt(_ record: inout ViolationRecord) -> Bool {
    guard let memory, unsignalled > 0 else { return false }
    full_fence()
    let count = unsignalled
    unsignalled = 0
    let event = relaxed_load32(memory.driverEvents)
    let flags = UInt16(truncatingIfNeeded: event >> 16)
    switch flags {
    case PackedRing.eventsOn: return true
    case PackedRing.eventsOff: return false
    case PackedRing.eventAtDescriptor where usesEventIndex:
      let index = Int(event & 0x7fff)
      if index >= size {
        record.add("2.8.10", "an interrupt is asked for at descriptor \(index) of \(size)")
        return true
      }
      let isThisRound = (event & 0x8000 != 0) == nextUsed.wrap
      let distance = nextUsed.index - index + (isThisRound ? 0 : size)
      return distance > 0 && distance <= count
    default:
      record.add("2.8.14", "event flags are \(flags)")
      return true
    }
  }

  /// Says whether the driver should notify: off while the device looks by itself.
  mutating func setNotifications(
    _ on: Bool, _ addresses: DeviceQueue.Addresses, _ iommu: CheckedIOMMU
  ) {
    guard !isBroken, locate(addresses, iommu), let memory else { return }
    let flags =
      on
      ? (usesEventIndex ? PackedRing.eventAtDescriptor : PackedRing.eventsOn)
      : PackedRing.eventsOff
    relaxed_store32(memory.deviceEvents, next.event | UInt32(flags) << 16)
    if on { full_fence() }
  }
}
