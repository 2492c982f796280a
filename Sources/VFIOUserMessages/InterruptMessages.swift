/// Interrupt types of a PCI device (linux/vfio.h).
public enum InterruptIndex {
  public static let intx: UInt32 = 0
  public static let msi: UInt32 = 1
  public static let msix: UInt32 = 2
  public static let error: UInt32 = 3
  public static let request: UInt32 = 4
  public static let count: UInt32 = 5
}

/// VFIO_USER_DEVICE_GET_IRQ_INFO: 16 bytes both ways.
public struct InterruptInfoMessage: Sendable, Equatable {
  public static let byteCount = 16
  public static let eventfd: UInt32 = 1 << 0
  public static let maskable: UInt32 = 1 << 1
  public static let automasked: UInt32 = 1 << 2
  public static let noResize: UInt32 = 1 << 3

  public var flags: UInt32
  public var index: UInt32
  public var count: UInt32

  public init(flags: UInt32 = 0, index: UInt32, count: UInt32 = 0) {
    self.flags = flags
    self.index = index
    self.count = count
  }

  public init?(_ bytes: [UInt8]) {
    var reader = ByteReader(bytes)
    guard let size = reader.read32(), size >= Self.byteCount, let flags = reader.read32(),
      let index = reader.read32(), let count = reader.read32()
    else { return nil }
    self.init(flags: flags, index: index, count: count)
  }

  public var bytes: [UInt8] {
    var writer = ByteWriter()
    writer.write32(UInt32(Self.byteCount))
    writer.write32(flags)
    writer.write32(index)
    writer.write32(count)
    return writer.bytes
  }
}

/// VFIO_USER_DEVICE_SET_IRQS: 20 bytes, then a byte for each vector where the data type is `boolean`. Descriptors of
/// eventfds come beside the message.
public struct SetInterruptsMessage: Sendable, Equatable {
  public static let byteCount = 20

  public enum Data: UInt32, Sendable {
    case none = 1
    case boolean = 2
    case eventfd = 4
  }

  public enum Action: UInt32, Sendable {
    case mask = 8
    case unmask = 16
    case trigger = 32
  }

  public var data: Data
  public var action: Action
  public var index: UInt32
  public var start: UInt32
  public var count: UInt32
  public var booleans: [Bool]

  public init(
    data: Data, action: Action, index: UInt32, start: UInt32, count: UInt32, booleans: [Bool] = []
  ) {
    self.data = data
    self.action = action
    self.index = index
    self.start = start
    self.count = count
    self.booleans = booleans
  }

  /// nil where a size is wrong, or the flags name not exactly one data type and one action.
  public init?(_ bytes: [UInt8]) {
    var reader = ByteReader(bytes)
    guard let size = reader.read32(), size >= Self.byteCount, size <= bytes.count,
      let flags = reader.read32(), let data = Data(rawValue: flags & 7),
      let action = Action(rawValue: flags & 0x38), flags & ~0x3f == 0,
      let index = reader.read32(), let start = reader.read32(), let count = reader.read32()
    else { return nil }
    self.init(data: data, action: action, index: index, start: start, count: count)
    if data == .boolean {
      guard let values = reader.readBytes(Int(count)) else { return nil }
      booleans = values.map { $0 != 0 }
    }
  }

  public var bytes: [UInt8] {
    var writer = ByteWriter()
    writer.write32(UInt32(Self.byteCount + booleans.count))
    writer.write32(data.rawValue | action.rawValue)
    writer.write32(index)
    writer.write32(start)
    writer.write32(count)
    writer.write(booleans.map { $0 ? 1 : 0 })
    return writer.bytes
  }
}
