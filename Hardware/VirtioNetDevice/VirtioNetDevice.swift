import EmulatedPCI
import Glibc
import PCI
import Virtio
import Wire

/// A virtio network device (virtio 1.2, 5.1) as a PCI function (4.1), modern interface, split and packed rings. Strict: what the
/// driver does against the specification is recorded in ``violations``.
public final class VirtioNetDevice: EmulatedFunction {
  public struct Options: Sendable {
    public var macAddress: [UInt8] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]
    public var mtu: UInt16 = 1500
    public var queuePairs = 1
    /// Features to offer besides those of every model: RING_PACKED, IN_ORDER.
    public var additional: VirtioFeatures = []
    /// Features to leave out.
    public var withheld: VirtioFeatures = []
    public init() {}
  }

  let wire: any FrameWire
  let options: Options
  /// What the device offers: consistent with 5.1.3.1.
  public let offered: VirtioFeatures
  public internal(set) var features: VirtioFeatures = []
  public internal(set) var status: VirtioStatus = []
  public internal(set) var violations = ViolationRecord("virtio 1.2")
  public internal(set) var counters = DeviceCounters()
  public internal(set) var linkIsUp = true

  var queues: [DeviceQueue]
  var queuePairsInUse = 1
  var filter: ReceiveFilter
  var deviceFeatureSelect: UInt32 = 0
  var driverFeatureSelect: UInt32 = 0
  var driverFeatures: UInt64 = 0
  var queueSelect: UInt16 = 0
  var configurationVector = VirtioPCI.noVector
  var generation: UInt8 = 0
  private var interruptStatus: UInt8 = 0
  private let windowCapability: Int
  /// A frame may be waiting, but the driver has no buffers for it.
  public internal(set) var isOutOfBuffers = false
  /// Whether it is stepped without being notified.
  var looksByItself = false
  /// How the next received frame is handed over wrong.
  var malformation: Malformation?
  var chain = DeviceQueue.Chain()
  var pieces: [iovec] = []
  /// Where frames go that nobody wants.
  var drained: [UInt8] = []
  var heads: [DeviceQueue.Head] = []

  private enum Layout {
    static let bar = 4
    static let common: UInt64 = 0x0000
    static let interruptStatus: UInt64 = 0x1000
    static let device: UInt64 = 0x2000
    static let notify: UInt64 = 0x3000
    static let notifyMultiplier: UInt32 = 4
    static let structureBytes: UInt32 = 0x1000
  }

  public init(wire: any FrameWire, options: Options = Options()) {
    self.wire = wire
    self.options = options
    var offered: VirtioFeatures = [
      .version1, .accessPlatform, .ringReset, .eventIndex, .indirectDescriptors, .macAddress,
      .mtu, .status, .mergeableBuffers, .checksum, .guestChecksum, .controlQueue, .controlReceive,
      .controlMACAddress, .notificationCoalescing,
    ]
    if wire.carriesOffloads { offered.formUnion([.hostTSO4, .hostTSO6, .guestTSO4, .guestTSO6]) }
    if options.queuePairs > 1 { offered.insert(.multiqueue) }
    offered.formUnion(options.additional.intersection([.packedRing, .inOrder]))
    offered.subtract(options.withheld)
    for (feature, needs) in VirtioFeatures.prerequisites where !offered.contains(needs) {
      offered.remove(feature)
    }
    self.offered = offered
    queues = Array(repeating: DeviceQueue(), count: 2 * options.queuePairs + 1)
    filter = ReceiveFilter(macAddress: options.macAddress)

    var space = ConfigurationSpace(
      vendor: VirtioPCI.vendor, device: VirtioPCI.networkDevice, classCode: 0x02_0000, revision: 1,
      subsystem: 0x1100)
    func structure(_ kind: VirtioPCI.Structure, _ offset: UInt64, _ bytes: UInt32, extra: Int = 0)
      -> [UInt8]
    {
      var body: [UInt8] = [UInt8(16 + extra), kind.rawValue, UInt8(Layout.bar), 0, 0, 0]
      for word in [UInt32(offset), bytes] {
        body += (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
      }
      return body
    }
    let vendor = PCICapability.vendorSpecific
    space.addCapability(
      vendor, structure(.common, Layout.common, UInt32(VirtioPCI.Common.byteCount)))
    space.addCapability(vendor, structure(.interruptStatus, Layout.interruptStatus, 1))
    space.addCapability(
      vendor, structure(.device, Layout.device, UInt32(VirtioNetConfiguration.byteCount)))
    let multiplier = (0..<4).map { UInt8(truncatingIfNeeded: Layout.notifyMultiplier >> (8 * $0)) }
    space.addCapability(
      vendor, structure(.notify, Layout.notify, Layout.structureBytes, extra: 4) + multiplier)
    // 4.1.4.9: the window: bar, offset, length and data are the driver's to write.
    windowCapability = space.addCapability(
      vendor, structure(.configurationAccess, 0, 0, extra: 4) + [0, 0, 0, 0],
      writable: [0, 0, 0xff, 0, 0, 0] + [UInt8](repeating: 0xff, count: 12))
    super.init(
      configuration: space, bars: [Layout.bar: 0x4000], vectors: 2 * options.queuePairs + 2,
      interruptBAR: 1)
    pieces.reserveCapacity(256)
  }

  // MARK: Registers

  public override func readRegister(bar: Int, offset: UInt64, byteCount: Int) -> UInt64 {
    switch offset {
    case Layout.common..<Layout.interruptStatus:
      checkWidth(Int(offset), byteCount)
      return UInt64(readCommon(Int(offset)))
    case Layout.interruptStatus:
      let value = interruptStatus
      interruptStatus = 0
      interrupts.setLine(false)
      return UInt64(value)
    case Layout.device..<Layout.notify:
      return readDevice(Int(offset - Layout.device), byteCount)
    default: return 0
    }
  }

  public override func writeRegister(bar: Int, offset: UInt64, byteCount: Int, value: UInt64) {
    switch offset {
    case Layout.common..<Layout.interruptStatus:
      checkWidth(Int(offset), byteCount)
      writeCommon(Int(offset), UInt32(truncatingIfNeeded: value))
    case Layout.device..<Layout.notify:
      violations.add("5.1.4.2", "a write to the device configuration")
    case Layout.notify...:
      if byteCount != 2 { violations.add("4.1.5.2.1", "a notification of \(byteCount) bytes") }
      if !status.contains(.driverOK) {
        violations.add("3.1.1", "a notification before DRIVER_OK")
      }
      counters.notifications += 1
      notify(Int(value), at: offset - Layout.notify)
    default: break
    }
  }

  /// 4.1.5.2: the value names the queue, whose place this must be.
  private func notify(_ queue: Int, at offset: UInt64) {
    guard queue < queues.count, offset == UInt64(queue) * UInt64(Layout.notifyMultiplier) else {
      violations.add("4.1.5.2", "a notification of queue \(queue) at offset \(offset)")
      return
    }
    queues[queue].isAsleep = false
  }

  /// Device configuration (5.1.4), as it is now.
  public var configurationBytes: [UInt8] {
    (0..<VirtioNetConfiguration.byteCount).map(configurationByte)
  }

  private func configurationByte(_ offset: Int) -> UInt8 {
    let word: UInt16
    switch offset & ~1 {
    case VirtioNetConfiguration.status: word = linkIsUp ? VirtioNetConfiguration.linkUp : 0
    case VirtioNetConfiguration.maximumQueuePairs: word = UInt16(options.queuePairs)
    case VirtioNetConfiguration.mtu: word = options.mtu
    default: return options.macAddress[offset]
    }
    return UInt8(truncatingIfNeeded: word >> UInt16(8 * (offset & 1)))
  }

  private func readDevice(_ offset: Int, _ byteCount: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<byteCount where offset + index < VirtioNetConfiguration.byteCount {
      value |= UInt64(configurationByte(offset + index)) << UInt64(8 * index)
    }
    return value
  }

  // MARK: Window in configuration space (4.1.4.9)

  public override func willReadConfiguration(at offset: Int, byteCount: Int) {
    guard let target = windowTarget(offset, byteCount) else { return }
    let value = readRegion(bar: target.bar, offset: target.offset, byteCount: target.byteCount)
    setWindowData(UInt32(truncatingIfNeeded: value))
  }

  public override func didWriteConfiguration(at offset: Int, byteCount: Int) {
    guard let target = windowTarget(offset, byteCount) else { return }
    let value = configuration.read(
      at: windowCapability + VirtioPCI.Capability.configurationData, byteCount: target.byteCount)
    writeRegion(
      bar: target.bar, offset: target.offset, byteCount: target.byteCount, value: UInt64(value))
  }

  private func windowTarget(
    _ offset: Int, _ byteCount: Int
  ) -> (bar: Int, offset: UInt64, byteCount: Int)? {
    let data = windowCapability + VirtioPCI.Capability.configurationData
    guard offset < data + 4 && offset + byteCount > data else { return nil }
    let bar = Int(
      configuration.read(at: windowCapability + VirtioPCI.Capability.bar, byteCount: 1))
    let at = configuration.read(
      at: windowCapability + VirtioPCI.Capability.offset, byteCount: 4)
    let length = Int(
      configuration.read(at: windowCapability + VirtioPCI.Capability.byteCount, byteCount: 4))
    guard [1, 2, 4].contains(length), Int(at) % length == 0, bar == Layout.bar else {
      violations.add("4.1.4.9.2", "a window of \(length) bytes at \(at) of BAR \(bar)")
      return nil
    }
    return (bar, UInt64(at), length)
  }

  private func setWindowData(_ value: UInt32) {
    configuration.write(
      value, at: windowCapability + VirtioPCI.Capability.configurationData, byteCount: 4)
  }

  // MARK: Interrupts and states

  func interruptQueue(_ index: Int) {
    guard queues[index].wantsInterrupt(features, &violations) else { return }
    counters.interrupts += 1
    if queues[index].vector != VirtioPCI.noVector {
      interrupts.trigger(Int(queues[index].vector))
    } else if !interrupts.isEnabled {
      interruptStatus |= 1
      interrupts.setLine(true)
    }
  }

  private func interruptConfiguration() {
    generation &+= 1
    if configurationVector != VirtioPCI.noVector {
      interrupts.trigger(Int(configurationVector))
    } else if !interrupts.isEnabled {
      interruptStatus |= 2
      interrupts.setLine(true)
    }
  }

  /// Pulls the cable, or puts it back.
  public func setLink(up: Bool) {
    if up == linkIsUp { return }
    linkIsUp = up
    if features.contains(.status) { interruptConfiguration() }
  }

  /// The device gives up until it is reset (2.1.2).
  public func fail() {
    status.insert(.needsReset)
    if status.contains(.driverOK) { interruptConfiguration() }
  }

  /// Whether the driver has brought the device into operation.
  public var isRunning: Bool { status.contains(.driverOK) && !status.contains(.needsReset) }

  public override func step() -> Bool { moveFrames() }

  public override func resetModel() {
    status = []
    features = []
    driverFeatures = 0
    deviceFeatureSelect = 0
    driverFeatureSelect = 0
    queueSelect = 0
    queuePairsInUse = 1
    configurationVector = VirtioPCI.noVector
    interruptStatus = 0
    interrupts.setLine(false)
    filter = ReceiveFilter(macAddress: options.macAddress)
    isOutOfBuffers = false
    for index in queues.indices { queues[index].reset() }
  }
}
