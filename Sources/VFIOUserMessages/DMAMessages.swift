/// VFIO_USER_DMA_MAP: 32 bytes, no reply payload. A descriptor comes with it where the memory can be mapped.
public struct DMAMapMessage: Sendable, Equatable {
  public static let byteCount = 32
  public static let readable: UInt32 = 1
  public static let writable: UInt32 = 2

  public var flags: UInt32
  /// In the file behind the descriptor.
  public var offset: UInt64
  /// As the device uses it.
  public var address: UInt64
  public var size: UInt64

  public init(flags: UInt32, offset: UInt64, address: UInt64, size: UInt64) {
    self.flags = flags
    self.offset = offset
    self.address = address
    self.size = size
  }

  /// nil where the payload has another size, or `argsz` is too small.
  public init?(_ bytes: [UInt8]) {
    var reader = ByteReader(bytes)
    guard bytes.count == Self.byteCount, let size = reader.read32(), size >= Self.byteCount,
      let flags = reader.read32(), let offset = reader.read64(), let address = reader.read64(),
      let byteCount = reader.read64()
    else { return nil }
    self.init(flags: flags, offset: offset, address: address, size: byteCount)
  }

  public var bytes: [UInt8] {
    var writer = ByteWriter()
    writer.write32(UInt32(Self.byteCount))
    writer.write32(flags)
    writer.write64(offset)
    writer.write64(address)
    writer.write64(size)
    return writer.bytes
  }
}

/// VFIO_USER_DMA_UNMAP: 24 bytes, echoed in the reply.
public struct DMAUnmapMessage: Sendable, Equatable {
  public static let byteCount = 24
  /// Asks for a bitmap of dirty pages first (migration).
  public static let dirtyBitmap: UInt32 = 1 << 0
  /// Removes every range; address and size are 0.
  public static let all: UInt32 = 1 << 1

  public var flags: UInt32
  public var address: UInt64
  public var size: UInt64

  public init(flags: UInt32 = 0, address: UInt64, size: UInt64) {
    self.flags = flags
    self.address = address
    self.size = size
  }

  /// A longer payload is taken for its first 24 bytes: a bitmap may follow them.
  public init?(_ bytes: [UInt8]) {
    var reader = ByteReader(bytes)
    guard let size = reader.read32(), size >= Self.byteCount, let flags = reader.read32(),
      let address = reader.read64(), let byteCount = reader.read64()
    else { return nil }
    self.init(flags: flags, address: address, size: byteCount)
  }

  public var bytes: [UInt8] {
    var writer = ByteWriter()
    writer.write32(UInt32(Self.byteCount))
    writer.write32(flags)
    writer.write64(address)
    writer.write64(size)
    return writer.bytes
  }
}

/// What VFIO_USER_DMA_READ and VFIO_USER_DMA_WRITE, sent by a server, begin with: 16 bytes, then data.
public struct DMAAccessMessage: Sendable, Equatable {
  public static let byteCount = 16

  public var address: UInt64
  public var count: UInt64

  public init(address: UInt64, count: UInt64) {
    self.address = address
    self.count = count
  }

  public init?(_ reader: inout ByteReader) {
    guard let address = reader.read64(), let count = reader.read64() else { return nil }
    self.init(address: address, count: count)
  }

  public func write(to writer: inout ByteWriter) {
    writer.write64(address)
    writer.write64(count)
  }
}
