import EmulatedPCI
import Glibc
import VFIOUserMessages

extension ClientSession {
  func describe(
    _ command: VFIOUserCommand, _ message: borrowing Message, _ refusals: inout Refusals
  ) throws(End) {
    var answer: [UInt8]?
    switch command {
    case .deviceInfo:
      if DeviceInfoMessage(message.payload) != nil {
        answer =
          DeviceInfoMessage(
            flags: DeviceInfoMessage.supportsReset | DeviceInfoMessage.isPCI,
            regions: RegionIndex.count, interrupts: InterruptIndex.count
          ).bytes
      }
    case .regionInfo:
      // Flags and capability offset of a command mean nothing.
      var reader = ByteReader(message.payload)
      if let room = reader.read32(), room >= RegionInfoMessage.byteCount, reader.read32() != nil,
        let index = reader.read32(), index < RegionIndex.count, reader.remaining >= 20
      {
        let size = regionByteCount(index)
        let flags = size > 0 ? RegionInfoMessage.readable | RegionInfoMessage.writable : 0
        answer = RegionInfoMessage(flags: flags, index: index, size: size).reply(within: room)
      }
    default:
      if let asked = InterruptInfoMessage(message.payload) {
        answer = interrupts.info(asked.index)?.bytes
      }
    }
    guard let answer else {
      refusals.count(.badPayload)
      return try reply(message.header, errno: EINVAL)
    }
    try reply(message.header, errno: 0, answer)
  }

  private func regionByteCount(_ index: UInt32) -> UInt64 {
    switch index {
    case 0...5: model.bars[Int(index)] ?? 0
    case RegionIndex.configuration: UInt64(ConfigurationSpace.byteCount)
    default: 0
    }
  }

  private func isInside(_ access: RegionAccessMessage) -> Bool {
    let size = regionByteCount(access.region)
    return access.count > 0 && Int(access.count) <= MessageLimits.dataByteCount
      && access.offset <= size && UInt64(access.count) <= size - access.offset
  }

  func access(
    _ command: VFIOUserCommand, _ message: borrowing Message, _ refusals: inout Refusals
  ) throws(End) {
    var reader = ByteReader(message.payload)
    if command == .regionWriteMultiple {
      return try writeMultiple(message.header, &reader, &refusals)
    }
    guard let access = RegionAccessMessage(&reader), isInside(access) else {
      refusals.count(.badRegionAccess)
      return try reply(message.header, errno: EINVAL)
    }
    var writer = ByteWriter(reserving: RegionAccessMessage.byteCount + Int(access.count))
    access.write(to: &writer)
    if command == .regionRead {
      guard reader.remaining == 0 else {
        refusals.count(.badRegionAccess)
        return try reply(message.header, errno: EINVAL)
      }
      read(access, into: &writer)
    } else {
      guard reader.remaining == access.count else {
        refusals.count(.badRegionAccess)
        return try reply(message.header, errno: EINVAL)
      }
      write(access, &reader)
    }
    try reply(message.header, errno: 0, writer.bytes)
  }

  /// Several writes of up to 8 bytes in one message: a count, then offset, region, count and 8 bytes for each.
  private func writeMultiple(
    _ header: MessageHeader, _ reader: inout ByteReader, _ refusals: inout Refusals
  ) throws(End) {
    let entry = RegionAccessMessage.byteCount + 8
    guard let count = reader.read64(), count <= UInt64(reader.remaining / entry) else {
      refusals.count(.badRegionAccess)
      return try reply(header, errno: EINVAL)
    }
    for _ in 0..<count {
      guard let access = RegionAccessMessage(&reader), access.count <= 8, isInside(access),
        let data = reader.readBytes(8)
      else {
        refusals.count(.badRegionAccess)
        return try reply(header, errno: EINVAL)
      }
      var values = ByteReader(Array(data))
      write(access, &values)
    }
    var writer = ByteWriter()
    writer.write64(count)
    try reply(header, errno: 0, writer.bytes)
  }

  /// The largest naturally aligned access that fits: what a CPU would do.
  private func width(at offset: UInt64, left: Int, most: Int) -> Int {
    var width = most
    while width > 1 && (width > left || offset % UInt64(width) != 0) { width /= 2 }
    return width
  }

  private func read(_ access: RegionAccessMessage, into writer: inout ByteWriter) {
    var offset = access.offset
    var left = Int(access.count)
    let isConfiguration = access.region == RegionIndex.configuration
    while left > 0 {
      let width = width(at: offset, left: left, most: isConfiguration ? 4 : 8)
      let value =
        isConfiguration
        ? UInt64(model.readConfiguration(at: Int(offset), byteCount: width))
        : model.readRegion(bar: Int(access.region), offset: offset, byteCount: width)
      for index in 0..<width {
        writer.write8(UInt8(truncatingIfNeeded: value >> UInt64(8 * index)))
      }
      offset += UInt64(width)
      left -= width
    }
  }

  private func write(_ access: RegionAccessMessage, _ reader: inout ByteReader) {
    var offset = access.offset
    var left = Int(access.count)
    let isConfiguration = access.region == RegionIndex.configuration
    while left > 0 {
      let width = width(at: offset, left: left, most: isConfiguration ? 4 : 8)
      guard let data = reader.readBytes(width) else { return }
      let value = data.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      if isConfiguration {
        model.writeConfiguration(
          UInt32(truncatingIfNeeded: value), at: Int(offset), byteCount: width)
      } else {
        model.writeRegion(bar: Int(access.region), offset: offset, byteCount: width, value: value)
      }
      offset += UInt64(width)
      left -= width
    }
  }
}
