import Glibc
import Memory
import PCI
import VFIO

/// The memory of a shared NIC's driver host: rings, and an arena of its own at the start of the window. Instances have
/// theirs behind it. Unmapped after the device has been made quiet.
struct SharedMemory: ~Copyable {
  let rings: Arena
  /// Received packets first, which the device writes; then copies of the headers of those to be sent, which it reads.
  let arena: Arena
  let ringsIOVA: UInt64
  /// Where the device sees the window.
  let windowIOVA: UInt64
  let windowBytes: Int
  let receiveBytes: Int
  let keeper: HugepageKeeper
  let hasHugePages: Bool
  private let access: any DeviceAccess

  static func make(
    for access: any DeviceAccess, _ plan: RunPlan, largestInstance: Int
  ) throws(SupervisorError) -> SharedMemory {
    let huge = Arena.PageSize.huge2M.rawValue
    let ringsBytes = (4 << 20) * max(1, plan.queues / 4)
    // A copy of headers for each descriptor of the transmit rings.
    let headerBytes = max(1, plan.queues * plan.ringSize * 256 / huge) * huge
    let arenaBytes = plan.partBytes + headerBytes
    let hasHugePages = plan.pageSize != .ordinary
    let keeper = HugepageKeeper()
    if hasHugePages { _ = try keeper.grow(toFree: (arenaBytes + ringsBytes) / huge) }
    let rings = try allocate(ringsBytes, hasHugePages, "martlet-rings")
    let arena = try allocate(arenaBytes, hasHugePages, "martlet-arena")
    var low = IOVAPlan(ranges: access.iovaRanges)
    // Above all that a device with 32 address bits takes for registers or interrupts.
    var high = IOVAPlan(ranges: access.iovaRanges, start: 1 << 32)
    let instances = SharingServer.maximumInstances * max(largestInstance, huge)
    let windowBytes = (arenaBytes + instances + huge - 1) / huge * huge
    guard let ringsIOVA = low.reserve(byteCount: UInt64(ringsBytes), alignment: UInt64(huge)),
      let windowIOVA = high.reserve(byteCount: UInt64(windowBytes), alignment: UInt64(huge))
    else {
      throw .device(
        "\(access.name) cannot address \(windowBytes >> 20) MiB above 4 GiB: lower maximum-memory in the policy"
      )
    }
    do throws(PCIError) {
      try access.mapDMA(
        DMAMemory(
          address: rings.address, descriptor: rings.descriptor, offset: 0,
          byteCount: UInt64(ringsBytes)), iova: ringsIOVA, rights: [.read, .write])
      let part = UInt64(plan.partBytes)
      try access.mapDMA(
        DMAMemory(
          address: arena.address, descriptor: arena.descriptor, offset: 0, byteCount: part),
        iova: windowIOVA, rights: [.read, .write])
      try access.mapDMA(
        DMAMemory(
          address: arena.address + plan.partBytes, descriptor: arena.descriptor, offset: part,
          byteCount: UInt64(headerBytes)), iova: windowIOVA + part, rights: .read)
    } catch {
      throw .device("\(access.name): \(error)")
    }
    return SharedMemory(
      rings: rings, arena: arena, ringsIOVA: ringsIOVA, windowIOVA: windowIOVA,
      windowBytes: windowBytes, receiveBytes: plan.partBytes, keeper: keeper,
      hasHugePages: hasHugePages, access: access)
  }

  private static func allocate(
    _ byteCount: Int, _ hasHugePages: Bool, _ name: String
  ) throws(SupervisorError) -> Arena {
    try asInput { () throws(MemoryError) -> Arena in
      hasHugePages
        ? try Arena.withBestPages(byteCount: byteCount, name: name)
        : try Arena(byteCount: byteCount, pageSize: .ordinary, name: name)
    }
  }

  private init(
    rings: consuming Arena, arena: consuming Arena, ringsIOVA: UInt64, windowIOVA: UInt64,
    windowBytes: Int, receiveBytes: Int, keeper: HugepageKeeper, hasHugePages: Bool,
    access: any DeviceAccess
  ) {
    self.rings = rings
    self.arena = arena
    self.ringsIOVA = ringsIOVA
    self.windowIOVA = windowIOVA
    self.windowBytes = windowBytes
    self.receiveBytes = receiveBytes
    self.keeper = keeper
    self.hasHugePages = hasHugePages
    self.access = access
  }

  /// Makes the device quiet, then takes its mappings away. After the driver host has ended.
  /// - Parameter instances: what is still mapped for instances that the host has not let go of.
  func release(_ instances: [(iova: UInt64, byteCount: Int)]) throws(PCIError) {
    try access.quiesce()
    for instance in instances {
      try access.unmapDMA(iova: instance.iova, byteCount: UInt64(instance.byteCount))
    }
    let headerBytes = UInt64(arena.byteCount - receiveBytes)
    try access.unmapDMA(iova: windowIOVA + UInt64(receiveBytes), byteCount: headerBytes)
    try access.unmapDMA(iova: windowIOVA, byteCount: UInt64(receiveBytes))
    try access.unmapDMA(iova: ringsIOVA, byteCount: UInt64(rings.byteCount))
  }
}
