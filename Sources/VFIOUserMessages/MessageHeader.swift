/// Commands of the vfio-user protocol (version 0.9.2, "Commands"; the numbers are those that libvfio-user and QEMU use).
public enum VFIOUserCommand: UInt16, Sendable {
  case version = 1
  case dmaMap = 2
  case dmaUnmap = 3
  case deviceInfo = 4
  case regionInfo = 5
  case regionIODescriptors = 6
  case interruptInfo = 7
  case setInterrupts = 8
  case regionRead = 9
  case regionWrite = 10
  case dmaRead = 11
  case dmaWrite = 12
  case deviceReset = 13
  case dirtyPages = 14
  case regionWriteMultiple = 15
  case deviceFeature = 16
  case migrationDataRead = 17
  case migrationDataWrite = 18
}

/// The 16 bytes before each message (vfio-user 0.9.2, "Header"), little-endian.
public struct MessageHeader: Sendable, Equatable {
  public static let byteCount = 16

  /// Chosen by the sender of a command, echoed in its reply.
  public var identifier: UInt16
  /// A ``VFIOUserCommand``, or whatever the peer sent.
  public var command: UInt16
  /// Of the whole message, this header included.
  public var size: UInt32
  public var flags: Flags
  /// In a reply with ``Flags/error``: an errno, or 0.
  public var errno: UInt32

  public struct Flags: OptionSet, Sendable {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// Bits 0 to 3 are the type: 0 a command, 1 a reply.
    public static let typeMask = Flags(rawValue: 0xf)
    public static let reply = Flags(rawValue: 1)
    public static let noReply = Flags(rawValue: 1 << 4)
    public static let error = Flags(rawValue: 1 << 5)
  }

  public init(
    identifier: UInt16, command: UInt16, size: UInt32, flags: Flags = [], errno: UInt32 = 0
  ) {
    self.identifier = identifier
    self.command = command
    self.size = size
    self.flags = flags
    self.errno = errno
  }

  /// Reads a header; nil where fewer than 16 bytes are left.
  public init?(_ reader: inout ByteReader) {
    guard let identifier = reader.read16(), let command = reader.read16(),
      let size = reader.read32(), let flags = reader.read32(), let errno = reader.read32()
    else { return nil }
    self.init(
      identifier: identifier, command: command, size: size, flags: Flags(rawValue: flags),
      errno: errno)
  }

  public func write(to writer: inout ByteWriter) {
    writer.write16(identifier)
    writer.write16(command)
    writer.write32(size)
    writer.write32(flags.rawValue)
    writer.write32(errno)
  }

  public var isReply: Bool { flags.intersection(.typeMask) == .reply }
  public var isCommand: Bool { flags.intersection(.typeMask) == [] }
}

/// Limits of this implementation, told to the peer in the version message.
public enum MessageLimits {
  /// Most bytes of data in one region or DMA access: the protocol's default.
  public static let dataByteCount = 1 << 20
  /// The largest message: that much data behind a header and the 16 bytes that say where it goes.
  public static let messageByteCount = dataByteCount + MessageHeader.byteCount + 16
  /// Most descriptors in one message, as told to the peer. QEMU's channel carries 16.
  public static let descriptorCount = 16
  /// Most that are taken all the same: Cloud Hypervisor sends those of all vectors at once, whatever it is told.
  public static let acceptedDescriptorCount = 64
  /// What has to be assumed of a peer that does not say (vfio-user 0.9.2, "VFIO_USER_VERSION").
  public static let assumedDescriptorCount = 1
  /// Most ranges that a server takes: each is a mapping of its process, which has 65530.
  public static let dmaMapCount = 16384
}
