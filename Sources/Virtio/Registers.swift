/// Device status (virtio 1.2, 2.1).
public struct VirtioStatus: OptionSet, Sendable, Hashable {
  public var rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  public static let acknowledge = VirtioStatus(rawValue: 1)
  public static let driver = VirtioStatus(rawValue: 2)
  public static let driverOK = VirtioStatus(rawValue: 4)
  public static let featuresOK = VirtioStatus(rawValue: 8)
  public static let needsReset = VirtioStatus(rawValue: 64)
  public static let failed = VirtioStatus(rawValue: 128)
}

/// PCI identity and capabilities (virtio 1.2, 4.1.2 and 4.1.4).
public enum VirtioPCI {
  public static let vendor: UInt16 = 0x1af4
  public static let networkDevice: UInt16 = 0x1041
  public static let transitionalNetworkDevice: UInt16 = 0x1000
  public static let noVector: UInt16 = 0xffff
  public static let maximumQueueSize = 32768

  /// cfg_type of a virtio_pci_cap (4.1.4).
  public enum Structure: UInt8, Sendable {
    case common = 1
    case notify = 2
    case interruptStatus = 3
    case device = 4
    case configurationAccess = 5
  }

  /// Offsets in a virtio_pci_cap.
  public enum Capability {
    public static let length = 2
    public static let type = 3
    public static let bar = 4
    public static let offset = 8
    public static let byteCount = 12
    public static let notifyMultiplier = 16
    public static let configurationData = 16
    public static let minimumLength = 16
  }

  /// Offsets in the common configuration structure (4.1.4.3).
  public enum Common {
    public static let deviceFeatureSelect = 0x00
    public static let deviceFeature = 0x04
    public static let driverFeatureSelect = 0x08
    public static let driverFeature = 0x0c
    public static let configurationVector = 0x10
    public static let queueCount = 0x12
    public static let deviceStatus = 0x14
    public static let configurationGeneration = 0x15
    public static let queueSelect = 0x16
    public static let queueSize = 0x18
    public static let queueVector = 0x1a
    public static let queueEnable = 0x1c
    public static let queueNotifyOffset = 0x1e
    public static let queueDescriptors = 0x20
    public static let queueDriver = 0x28
    public static let queueDevice = 0x30
    public static let queueNotifyData = 0x38
    public static let queueReset = 0x3a
    /// Bytes up to the fields that come with optional features.
    public static let minimumByteCount = 0x38
    public static let byteCount = 0x3c
  }
}

/// Network device configuration (5.1.4): offsets.
public enum VirtioNetConfiguration {
  public static let macAddress = 0
  public static let status = 6
  public static let maximumQueuePairs = 8
  public static let mtu = 10
  public static let byteCount = 12
  public static let linkUp: UInt16 = 1
  public static let announce: UInt16 = 2
}

/// virtio_net_hdr (5.1.6): offsets and values. Always 12 bytes with VERSION_1.
public enum VirtioNetHeader {
  @inlinable public static var byteCount: Int { 12 }
  @inlinable public static var flags: Int { 0 }
  @inlinable public static var segmentation: Int { 1 }
  @inlinable public static var headerLength: Int { 2 }
  @inlinable public static var segmentSize: Int { 4 }
  @inlinable public static var checksumStart: Int { 6 }
  @inlinable public static var checksumOffset: Int { 8 }
  @inlinable public static var bufferCount: Int { 10 }

  @inlinable public static var needsChecksum: UInt8 { 1 }
  @inlinable public static var dataValid: UInt8 { 2 }
  @inlinable public static var segmentationNone: UInt8 { 0 }
  @inlinable public static var segmentationTCP4: UInt8 { 1 }
  @inlinable public static var segmentationUDP: UInt8 { 3 }
  @inlinable public static var segmentationTCP6: UInt8 { 4 }
  @inlinable public static var segmentationECN: UInt8 { 0x80 }
}

/// Commands of the control queue (5.1.6.5): class, command.
public enum VirtioNetCommand {
  public static let receiveClass: UInt8 = 0
  public static let promiscuous: UInt8 = 0
  public static let allMulticast: UInt8 = 1
  public static let macClass: UInt8 = 1
  public static let macTableSet: UInt8 = 0
  public static let macAddressSet: UInt8 = 1
  public static let announceClass: UInt8 = 3
  public static let announceAcknowledge: UInt8 = 0
  public static let multiqueueClass: UInt8 = 4
  public static let queuePairsSet: UInt8 = 0
  public static let guestOffloadsClass: UInt8 = 5
  public static let guestOffloadsSet: UInt8 = 0
  public static let coalescingClass: UInt8 = 6
  public static let transmitCoalescingSet: UInt8 = 0
  public static let receiveCoalescingSet: UInt8 = 1
  public static let acknowledged: UInt8 = 0
  public static let refused: UInt8 = 1
}

/// Split virtqueues (2.7): flags and sizes.
public enum SplitRing {
  @inlinable public static var next: UInt16 { 1 }
  @inlinable public static var write: UInt16 { 2 }
  @inlinable public static var indirect: UInt16 { 4 }
  @inlinable public static var noInterrupt: UInt16 { 1 }
  @inlinable public static var noNotify: UInt16 { 1 }
  @inlinable public static var descriptorBytes: Int { 16 }
  public static func availableBytes(size: Int) -> Int { 6 + 2 * size }
  public static func usedBytes(size: Int) -> Int { 6 + 8 * size }
}

/// Packed virtqueues (2.8): flags of descriptors and of event suppression, as they lie in memory.
public enum PackedRing {
  @inlinable public static var next: UInt16 { 1 }
  @inlinable public static var write: UInt16 { 2 }
  @inlinable public static var indirect: UInt16 { 4 }
  /// 2.8.1: which of the two is set says whose a descriptor is.
  @inlinable public static var available: UInt16 { 1 << 7 }
  @inlinable public static var used: UInt16 { 1 << 15 }
  @inlinable public static var descriptorBytes: Int { 16 }
  /// 2.8.14: flags of an event suppression structure.
  @inlinable public static var eventBytes: Int { 4 }
  @inlinable public static var eventsOn: UInt16 { 0 }
  @inlinable public static var eventsOff: UInt16 { 1 }
  @inlinable public static var eventAtDescriptor: UInt16 { 2 }
}
