import VFIOUserMessages

/// A 64-bit number: features, status, an acknowledgement, or a ring with its descriptor.
public struct VhostUserNumber: Sendable, Equatable {
  public var value: UInt64
  public init(_ value: UInt64) { self.value = value }

  /// nil where the payload has another size.
  public init?(_ payload: [UInt8]) {
    var reader = ByteReader(payload)
    guard payload.count == 8, let value = reader.read64() else { return nil }
    self.value = value
  }

  public var bytes: [UInt8] {
    var writer = ByteWriter(reserving: 8)
    writer.write64(value)
    return writer.bytes
  }

  /// For a ring's eventfd: the ring's number, and bit 8 where no descriptor comes with it.
  public static func ring(_ ring: Int, hasDescriptor: Bool) -> VhostUserNumber {
    VhostUserNumber(UInt64(ring) | (hasDescriptor ? 0 : noDescriptor))
  }
  public static let noDescriptor: UInt64 = 1 << 8
}

/// A ring and a number of it: its size, its base, or whether it is enabled.
public struct VringState: Sendable, Equatable {
  public var ring: UInt32
  public var value: UInt32

  public init(ring: Int, value: UInt32) {
    self.ring = UInt32(ring)
    self.value = value
  }

  /// nil where the payload has another size.
  public init?(_ payload: [UInt8]) {
    var reader = ByteReader(payload)
    guard payload.count == 8, let ring = reader.read32(), let value = reader.read32() else {
      return nil
    }
    self.ring = ring
    self.value = value
  }

  public var bytes: [UInt8] {
    var writer = ByteWriter(reserving: 8)
    writer.write32(ring)
    writer.write32(value)
    return writer.bytes
  }
}

/// Where a ring's three parts lie, in the front-end's own addresses.
public struct VringAddresses: Sendable, Equatable {
  public var ring: UInt32
  public var flags: UInt32 = 0
  public var descriptors: UInt64
  public var used: UInt64
  public var available: UInt64
  public var log: UInt64 = 0

  public init(ring: Int, descriptors: UInt64, used: UInt64, available: UInt64) {
    self.ring = UInt32(ring)
    self.descriptors = descriptors
    self.used = used
    self.available = available
  }

  /// nil where the payload has another size.
  public init?(_ payload: [UInt8]) {
    var reader = ByteReader(payload)
    guard payload.count == 40, let ring = reader.read32(), let flags = reader.read32(),
      let descriptors = reader.read64(), let used = reader.read64(),
      let available = reader.read64(), let log = reader.read64()
    else { return nil }
    self.ring = ring
    self.flags = flags
    self.descriptors = descriptors
    self.used = used
    self.available = available
    self.log = log
  }

  public var bytes: [UInt8] {
    var writer = ByteWriter(reserving: 40)
    writer.write32(ring)
    writer.write32(flags)
    for word in [descriptors, used, available, log] { writer.write64(word) }
    return writer.bytes
  }
}

/// A range of memory that the back-end may reach. Its descriptor goes with the message.
public struct VhostUserRegion: Sendable, Equatable {
  /// As the device sees it in descriptors.
  public var guestAddress: UInt64
  public var byteCount: UInt64
  /// As the front-end names it in ``VringAddresses``.
  public var userAddress: UInt64
  /// Bytes from the descriptor's start.
  public var offset: UInt64

  public init(guestAddress: UInt64, byteCount: UInt64, userAddress: UInt64, offset: UInt64) {
    self.guestAddress = guestAddress
    self.byteCount = byteCount
    self.userAddress = userAddress
    self.offset = offset
  }
}

/// SET_MEM_TABLE: all that the back-end may reach, in place of what it was told before.
public struct VhostUserMemoryTable: Sendable, Equatable {
  public var regions: [VhostUserRegion]
  public init(regions: [VhostUserRegion]) { self.regions = regions }

  /// nil where the count is over the limit or the payload has not exactly as many regions.
  public init?(_ payload: [UInt8]) {
    var reader = ByteReader(payload)
    guard let count = reader.read32(), reader.read32() != nil, count <= VhostUserLimits.regions,
      payload.count == 8 + 32 * Int(count)
    else { return nil }
    var regions: [VhostUserRegion] = []
    for _ in 0..<count {
      guard let guest = reader.read64(), let byteCount = reader.read64(),
        let user = reader.read64(), let offset = reader.read64()
      else { return nil }
      regions.append(
        VhostUserRegion(
          guestAddress: guest, byteCount: byteCount, userAddress: user, offset: offset))
    }
    self.regions = regions
  }

  public var bytes: [UInt8] {
    var writer = ByteWriter(reserving: 8 + 32 * regions.count)
    writer.write32(UInt32(regions.count))
    writer.write32(0)
    for region in regions {
      writer.write64(region.guestAddress)
      writer.write64(region.byteCount)
      writer.write64(region.userAddress)
      writer.write64(region.offset)
    }
    return writer.bytes
  }
}

/// GET_CONFIG: a part of the device's configuration space. The question has as many bytes as the answer.
public struct VhostUserConfiguration: Sendable, Equatable {
  public var offset: UInt32
  public var flags: UInt32 = 0
  public var data: [UInt8]

  public init(offset: UInt32, data: [UInt8]) {
    self.offset = offset
    self.data = data
  }

  /// nil where the payload is not as long as it says, or says more than 256 bytes.
  public init?(_ payload: [UInt8]) {
    var reader = ByteReader(payload)
    guard let offset = reader.read32(), let size = reader.read32(), let flags = reader.read32(),
      size <= 256, reader.remaining == Int(size), let data = reader.readBytes(Int(size))
    else { return nil }
    self.offset = offset
    self.flags = flags
    self.data = Array(data)
  }

  public var bytes: [UInt8] {
    var writer = ByteWriter(reserving: 12 + data.count)
    writer.write32(offset)
    writer.write32(UInt32(data.count))
    writer.write32(flags)
    writer.write(data)
    return writer.bytes
  }
}
