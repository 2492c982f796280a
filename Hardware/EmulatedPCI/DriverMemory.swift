import Memory

/// Memory for a driver of a model in the same process: one range for its rings and one for its packets, both zero and
/// mapped for the model to read and write. Outlives the model's last access. One thread.
public struct DriverMemory: ~Copyable {
  /// For rings and tables.
  public let rings: DMARange
  /// For packets.
  public let arena: DMARange

  /// - Parameters:
  ///   - iommu: the model's, where nothing lies at these addresses yet.
  ///   - ringsByteCount: of the rings' range, a multiple of a page.
  ///   - arenaByteCount: of the packets' range, a multiple of a page.
  ///   - arenaIOVA: where the device sees the packets' first byte; the rings are at 1 MiB.
  public init(
    mappedIn iommu: CheckedIOMMU, ringsByteCount: Int = 1 << 20, arenaByteCount: Int,
    arenaIOVA: UInt64 = 0x4000_0000
  ) throws(CheckedIOMMU.MapError) {
    rings = Self.allocate(byteCount: ringsByteCount, iova: 0x10_0000)
    arena = Self.allocate(byteCount: arenaByteCount, iova: arenaIOVA)
    for range in [rings, arena] {
      try iommu.map(
        iova: range.iova, byteCount: UInt64(range.byteCount), address: range.address,
        rights: [.read, .write])
    }
  }

  deinit {
    rings.address.deallocate()
    arena.address.deallocate()
  }

  // Invariant: as many bytes as the range says, until `deinit`.
  private static func allocate(byteCount: Int, iova: UInt64) -> DMARange {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    return DMARange(address: memory, iova: iova, byteCount: byteCount)
  }
}
