import Memory
import PCI
import VFIO

/// The memory that one NIC and one instance need, mapped for the device; unmapped when it goes away, after the device
/// has been made quiet.
public struct DeviceMemory: ~Copyable {
  public let rings: Arena
  public let arena: Arena
  public let ringsIOVA: UInt64
  public let arenaIOVA: UInt64
  public let receiveBytes: Int
  private let access: any DeviceAccess
  private let keeper: HugepageKeeper

  /// Why ordinary pages are used where huge ones were wanted.
  public var warning: String? {
    arena.pageSize == .ordinary
      ? "no huge pages: using ordinary ones, which cost speed; `sysctl -w vm.nr_hugepages=64`" : nil
  }

  /// - Parameters:
  ///   - partBytes: of the receive part and of the transmit part each, a multiple of 2 MiB.
  ///   - pageSize: nil for 2 MiB where they can be had and ordinary ones elsewhere.
  public static func make(
    for access: any DeviceAccess, partBytes: Int, ringsBytes: Int, pageSize: Arena.PageSize?,
    usesVirtualAddresses: Bool = false
  ) throws(SupervisorError) -> DeviceMemory {
    let total = 2 * partBytes + ringsBytes
    let wantsHuge = pageSize != .ordinary
    let keeper = try HugepageKeeper(
      pages: wantsHuge && pageSize != .huge1G ? total / Arena.PageSize.huge2M.rawValue : 0)
    let rings = try asInput { () throws(MemoryError) -> Arena in
      try allocate(ringsBytes, pageSize == .huge1G ? .huge2M : pageSize, "martlet-rings")
    }
    let arena = try asInput { () throws(MemoryError) -> Arena in
      try allocate(2 * partBytes, pageSize, "martlet-arena")
    }
    let (ringsIOVA, arenaIOVA) =
      usesVirtualAddresses
      ? try virtualAddresses(access, rings, arena) : try chosenAddresses(access, rings, arena)
    do throws(PCIError) {
      try access.mapDMA(
        DMAMemory(
          address: rings.address, descriptor: rings.descriptor, offset: 0,
          byteCount: UInt64(ringsBytes)), iova: ringsIOVA, rights: [.read, .write])
      let part = UInt64(partBytes)
      try access.mapDMA(
        DMAMemory(
          address: arena.address, descriptor: arena.descriptor, offset: 0, byteCount: part),
        iova: arenaIOVA, rights: [.read, .write])
      // What is to be sent the device may read, and nothing more.
      try access.mapDMA(
        DMAMemory(
          address: arena.address + partBytes, descriptor: arena.descriptor, offset: part,
          byteCount: part), iova: arenaIOVA + part, rights: .read)
    } catch {
      throw .device("\(access.name): \(error)")
    }
    return DeviceMemory(
      rings: rings, arena: arena, ringsIOVA: ringsIOVA, arenaIOVA: arenaIOVA,
      receiveBytes: partBytes, access: access, keeper: keeper)
  }

  private static func chosenAddresses(
    _ access: any DeviceAccess, _ rings: borrowing Arena, _ arena: borrowing Arena
  ) throws(SupervisorError) -> (UInt64, UInt64) {
    var plan = IOVAPlan(ranges: access.iovaRanges)
    let alignment = UInt64(arena.pageSize.rawValue)
    guard
      let ringsIOVA = plan.reserve(byteCount: UInt64(rings.byteCount), alignment: alignment),
      let arenaIOVA = plan.reserve(byteCount: UInt64(arena.byteCount), alignment: alignment)
    else { throw .device("\(access.name) cannot address \(arena.byteCount) bytes of memory") }
    return (ringsIOVA, arenaIOVA)
  }

  /// IOVA = virtual address: where the memory lies in this process, and then in the others as well.
  private static func virtualAddresses(
    _ access: any DeviceAccess, _ rings: borrowing Arena, _ arena: borrowing Arena
  ) throws(SupervisorError) -> (UInt64, UInt64) {
    let addresses = [
      (UInt64(UInt(bitPattern: rings.address)), UInt64(rings.byteCount)),
      (UInt64(UInt(bitPattern: arena.address)), UInt64(arena.byteCount)),
    ]
    for (start, byteCount) in addresses
    where !access.iovaRanges.contains(where: {
      $0.contains(start) && $0.contains(start + byteCount - 1)
    }) {
      throw .device(
        "the IOMMU of \(access.name) cannot use virtual addresses (47 bits); leave out --iova virtual, or give QEMU's intel-iommu aw-bits=48"
      )
    }
    return (addresses[0].0, addresses[1].0)
  }

  private init(
    rings: consuming Arena, arena: consuming Arena, ringsIOVA: UInt64, arenaIOVA: UInt64,
    receiveBytes: Int, access: any DeviceAccess, keeper: HugepageKeeper
  ) {
    self.rings = rings
    self.arena = arena
    self.ringsIOVA = ringsIOVA
    self.arenaIOVA = arenaIOVA
    self.receiveBytes = receiveBytes
    self.access = access
    self.keeper = keeper
  }

  private static func allocate(
    _ byteCount: Int, _ pageSize: Arena.PageSize?, _ name: String
  ) throws(MemoryError) -> Arena {
    if let pageSize { return try Arena(byteCount: byteCount, pageSize: pageSize, name: name) }
    return try Arena.withBestPages(byteCount: byteCount, name: name)
  }

  /// Makes the device quiet, then takes its mappings away. Before the memory is used for anything else.
  public func release() throws(PCIError) {
    try access.quiesce()
    let part = UInt64(receiveBytes)
    try access.unmapDMA(iova: arenaIOVA + part, byteCount: part)
    try access.unmapDMA(iova: arenaIOVA, byteCount: part)
    try access.unmapDMA(iova: ringsIOVA, byteCount: UInt64(rings.byteCount))
  }
}
