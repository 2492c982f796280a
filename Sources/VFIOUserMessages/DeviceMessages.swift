/// VFIO_USER_DEVICE_GET_INFO: 16 bytes both ways.
public struct DeviceInfoMessage: Sendable, Equatable {
  public static let byteCount = 16
  public static let supportsReset: UInt32 = 1 << 0
  public static let isPCI: UInt32 = 1 << 1

  public var argumentSize: UInt32
  public var flags: UInt32
  public var regions: UInt32
  public var interrupts: UInt32

  public init(
    argumentSize: UInt32 = UInt32(byteCount), flags: UInt32 = 0, regions: UInt32 = 0,
    interrupts: UInt32 = 0
  ) {
    self.argumentSize = argumentSize
    self.flags = flags
    self.regions = regions
    self.interrupts = interrupts
  }

  public init?(_ bytes: [UInt8]) {
    var reader = ByteReader(bytes)
    guard let size = reader.read32(), size >= Self.byteCount, let flags = reader.read32(),
      let regions = reader.read32(), let interrupts = reader.read32()
    else { return nil }
    self.init(argumentSize: size, flags: flags, regions: regions, interrupts: interrupts)
  }

  public var bytes: [UInt8] {
    var writer = ByteWriter()
    writer.write32(argumentSize)
    writer.write32(flags)
    writer.write32(regions)
    writer.write32(interrupts)
    return writer.bytes
  }
}

/// Region indices of a PCI device (linux/vfio.h): BAR 0 to 5 are 0 to 5.
public enum RegionIndex {
  public static let rom: UInt32 = 6
  public static let configuration: UInt32 = 7
  public static let vga: UInt32 = 8
  public static let count: UInt32 = 9
}

/// VFIO_USER_DEVICE_GET_REGION_INFO: 32 bytes both ways, in the reply with a list of capabilities behind.
public struct RegionInfoMessage: Sendable, Equatable {
  public static let byteCount = 32
  public static let readable: UInt32 = 1 << 0
  public static let writable: UInt32 = 1 << 1
  public static let mappable: UInt32 = 1 << 2
  public static let hasCapabilities: UInt32 = 1 << 3
  static let sparseMapCapability: UInt16 = 1

  /// A part of a region, in bytes from its start.
  public struct Area: Sendable, Equatable {
    public var offset: UInt64
    public var size: UInt64
    public init(offset: UInt64, size: UInt64) {
      self.offset = offset
      self.size = size
    }
  }

  public var argumentSize: UInt32
  public var flags: UInt32
  public var index: UInt32
  public var size: UInt64
  /// Of the region in the file behind the reply's descriptor.
  public var offset: UInt64
  /// The parts that can be mapped, where not the whole can be. In a reply only.
  public var sparseAreas: [Area]

  public init(
    argumentSize: UInt32 = UInt32(byteCount), flags: UInt32 = 0, index: UInt32, size: UInt64 = 0,
    offset: UInt64 = 0, sparseAreas: [Area] = []
  ) {
    self.argumentSize = argumentSize
    self.flags = flags
    self.index = index
    self.size = size
    self.offset = offset
    self.sparseAreas = sparseAreas
  }

  /// Reads a command or a reply. The walk of the capability list goes forward only, so that it ends.
  public init(_ bytes: [UInt8]) throws(MessageError) {
    var reader = ByteReader(bytes)
    guard let size = reader.read32(), let flags = reader.read32(), let index = reader.read32(),
      let capabilities = reader.read32(), let byteCount = reader.read64(),
      let offset = reader.read64()
    else { throw .malformed("region info of \(bytes.count) bytes") }
    self.init(
      argumentSize: size, flags: flags, index: index, size: byteCount, offset: offset)
    guard flags & Self.hasCapabilities != 0, size <= bytes.count else { return }
    var position = Int(capabilities)
    var previous = Self.byteCount - 1
    while position != 0 {
      guard position > previous else { throw .malformed("region capabilities that go back") }
      previous = position
      var entry = ByteReader(bytes, at: position)
      guard position < bytes.count, let identifier = entry.read16(), entry.read16() != nil,
        let next = entry.read32()
      else { throw .malformed("a region capability past the end") }
      if identifier == Self.sparseMapCapability { sparseAreas = try Self.areas(&entry) }
      position = Int(next)
    }
  }

  private static func areas(_ reader: inout ByteReader) throws(MessageError) -> [Area] {
    guard let count = reader.read32(), reader.read32() != nil, Int(count) <= reader.remaining / 16
    else { throw .malformed("mappable areas past the end") }
    var areas: [Area] = []
    for _ in 0..<count {
      if let offset = reader.read64(), let size = reader.read64() {
        areas.append(Area(offset: offset, size: size))
      }
    }
    return areas
  }

  /// A command: it has no more than `argsz` and the region's index.
  public var command: [UInt8] {
    var writer = ByteWriter()
    writer.write32(argumentSize)
    writer.write32(0)
    writer.write32(index)
    writer.write32(0)
    writer.write64(0)
    writer.write64(0)
    return writer.bytes
  }

  /// A reply, with its capabilities where `room` suffices; else their size is in `argsz` and the peer asks again.
  public func reply(within room: UInt32) -> [UInt8] {
    let full = Self.byteCount + (sparseAreas.isEmpty ? 0 : 16 + 16 * sparseAreas.count)
    let fits = UInt64(full) <= UInt64(room)
    let flags = self.flags | (sparseAreas.isEmpty ? 0 : Self.hasCapabilities)
    var writer = ByteWriter(reserving: full)
    writer.write32(UInt32(full))
    writer.write32(flags)
    writer.write32(index)
    writer.write32(sparseAreas.isEmpty || !fits ? 0 : UInt32(Self.byteCount))
    writer.write64(size)
    writer.write64(offset)
    guard fits, !sparseAreas.isEmpty else { return writer.bytes }
    writer.write16(Self.sparseMapCapability)
    writer.write16(1)
    writer.write32(0)
    writer.write32(UInt32(sparseAreas.count))
    writer.write32(0)
    for area in sparseAreas {
      writer.write64(area.offset)
      writer.write64(area.size)
    }
    return writer.bytes
  }
}

/// What VFIO_USER_REGION_READ and VFIO_USER_REGION_WRITE begin with: 16 bytes, then data.
public struct RegionAccessMessage: Sendable, Equatable {
  public static let byteCount = 16

  public var offset: UInt64
  public var region: UInt32
  public var count: UInt32

  public init(offset: UInt64, region: UInt32, count: UInt32) {
    self.offset = offset
    self.region = region
    self.count = count
  }

  public init?(_ reader: inout ByteReader) {
    guard let offset = reader.read64(), let region = reader.read32(), let count = reader.read32()
    else { return nil }
    self.init(offset: offset, region: region, count: count)
  }

  public func write(to writer: inout ByteWriter) {
    writer.write64(offset)
    writer.write32(region)
    writer.write32(count)
  }
}
