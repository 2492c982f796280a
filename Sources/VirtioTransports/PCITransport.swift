import Driver
import PCI
import Virtio

/// Virtio over PCI (virtio 1.2, 4.1), modern interface only.
public final class PCITransport: VirtioTransport {
  public let function: any PCIFunction
  private let common: RegisterWindow
  private let notify: RegisterWindow
  private let interruptStatus: RegisterWindow
  private let device: RegisterWindow?
  private let notifyMultiplier: UInt32

  /// - Throws: where the function lacks what virtio over PCI needs, or breaks its rules.
  public init(_ function: any PCIFunction) throws(DriverError) {
    self.function = function
    let structures: Structures
    let device: UInt16
    do throws(PCIError) {
      structures = try Structures(function)
      device = try function.device
    } catch {
      throw .pci(error)
    }
    guard let common = structures.common else {
      // 4.1.2: ids below 0x1040 are transitional devices, which may lack the modern interface.
      if device < 0x1040 {
        throw .unsupported(
          "\(function.name) is a legacy virtio device: start it with disable-legacy=on")
      }
      throw .pci(.missingCapability("common configuration"))
    }
    guard let notify = structures.notify else {
      throw .pci(.missingCapability("notification"))
    }
    guard let interruptStatus = structures.interruptStatus else {
      throw .pci(.missingCapability("interrupt status"))
    }
    self.common = common
    self.notify = notify
    self.interruptStatus = interruptStatus
    self.device = structures.device
    notifyMultiplier = structures.notifyMultiplier
  }

  public var deviceFeatures: VirtioFeatures {
    common.write32(0, at: VirtioPCI.Common.deviceFeatureSelect)
    let low = common.read32(at: VirtioPCI.Common.deviceFeature)
    common.write32(1, at: VirtioPCI.Common.deviceFeatureSelect)
    let high = common.read32(at: VirtioPCI.Common.deviceFeature)
    return VirtioFeatures(rawValue: UInt64(high) << 32 | UInt64(low))
  }

  public func accept(_ features: VirtioFeatures) {
    common.write32(0, at: VirtioPCI.Common.driverFeatureSelect)
    common.write32(
      UInt32(truncatingIfNeeded: features.rawValue), at: VirtioPCI.Common.driverFeature)
    common.write32(1, at: VirtioPCI.Common.driverFeatureSelect)
    common.write32(
      UInt32(truncatingIfNeeded: features.rawValue >> 32), at: VirtioPCI.Common.driverFeature)
  }

  public var status: VirtioStatus {
    VirtioStatus(rawValue: common.read8(at: VirtioPCI.Common.deviceStatus))
  }

  public func setStatus(_ status: VirtioStatus) {
    common.write8(status.rawValue, at: VirtioPCI.Common.deviceStatus)
  }

  public func reset() throws(DriverError) {
    setStatus([])
    // Each read is a round trip to the device; a real one needs a few milliseconds at most.
    let limit = Deadline(milliseconds: 2000)
    while true {
      let status = self.status
      if status == [] { return }
      if status.rawValue == 0xff { throw .deviceGone }
      if limit.hasPassed { throw .resetTimeout }
    }
  }

  public var queueCount: Int { Int(common.read16(at: VirtioPCI.Common.queueCount)) }

  public func maximumSize(ofQueue queue: Int) -> Int {
    common.write16(UInt16(queue), at: VirtioPCI.Common.queueSelect)
    return Int(common.read16(at: VirtioPCI.Common.queueSize))
  }

  public func enable(
    _ queue: Int, _ ring: VirtqueueAddresses, vector: UInt16
  ) throws(DriverError) -> QueueDoorbell {
    common.write16(UInt16(queue), at: VirtioPCI.Common.queueSelect)
    common.write16(UInt16(ring.size), at: VirtioPCI.Common.queueSize)
    common.write16(vector, at: VirtioPCI.Common.queueVector)
    // 4.1.5.1.2.2: a device that has no room for the vector answers NO_VECTOR.
    guard common.read16(at: VirtioPCI.Common.queueVector) == vector else {
      throw .unsupported("\(function.name) refuses interrupt vector \(vector) for queue \(queue)")
    }
    write64(ring.descriptorArea, at: VirtioPCI.Common.queueDescriptors)
    write64(ring.driverArea, at: VirtioPCI.Common.queueDriver)
    write64(ring.deviceArea, at: VirtioPCI.Common.queueDevice)
    let offset = UInt64(common.read16(at: VirtioPCI.Common.queueNotifyOffset))
    let doorbell: RegisterWindow
    do throws(PCIError) {
      doorbell = try notify.window(at: offset * UInt64(notifyMultiplier), byteCount: 2)
    } catch {
      throw .pci(error)
    }
    common.write16(1, at: VirtioPCI.Common.queueEnable)
    return QueueDoorbell(window: doorbell, queue: UInt16(queue))
  }

  public func resetQueue(_ queue: Int) throws(DriverError) {
    guard common.byteCount >= UInt64(VirtioPCI.Common.byteCount) else {
      throw .unsupported("\(function.name) cannot reset a single queue")
    }
    common.write16(UInt16(queue), at: VirtioPCI.Common.queueSelect)
    common.write16(1, at: VirtioPCI.Common.queueReset)
    let limit = Deadline(milliseconds: 1000)
    while common.read16(at: VirtioPCI.Common.queueReset) != 0 {
      if limit.hasPassed { throw .resetTimeout }
    }
  }

  public func setConfigurationVector(_ vector: UInt16) throws(DriverError) {
    common.write16(vector, at: VirtioPCI.Common.configurationVector)
    guard common.read16(at: VirtioPCI.Common.configurationVector) == vector else {
      throw .unsupported("\(function.name) refuses interrupt vector \(vector)")
    }
  }

  public func readConfiguration<R>(_ body: (RegisterWindow) -> R) throws(DriverError) -> R {
    guard let device else { throw .pci(.missingCapability("device configuration")) }
    // A device whose generation never settles is broken; a few tries are enough for a real one.
    for _ in 0..<100 {
      let before = common.read8(at: VirtioPCI.Common.configurationGeneration)
      let value = body(device)
      if common.read8(at: VirtioPCI.Common.configurationGeneration) == before { return value }
    }
    throw .unsupported("\(function.name) never stops changing its configuration")
  }

  public func readInterruptStatus() -> UInt8 { interruptStatus.read8(at: 0) }

  /// 4.1.3.1: a 64-bit field may be written as two of 32 bits.
  private func write64(_ value: UInt64, at offset: Int) {
    common.write32(UInt32(truncatingIfNeeded: value), at: offset)
    common.write32(UInt32(truncatingIfNeeded: value >> 32), at: offset + 4)
  }
}

/// The structures that a device's vendor capabilities point at (4.1.4): the first of each kind that can be used.
private struct Structures {
  var common: RegisterWindow?
  var notify: RegisterWindow?
  var interruptStatus: RegisterWindow?
  var device: RegisterWindow?
  var notifyMultiplier: UInt32 = 0

  init(_ function: any PCIFunction) throws(PCIError) {
    for capability in try function.capabilities()
    where capability.identifier == PCICapability.vendorSpecific {
      try read(capability.offset, of: function)
    }
  }

  private mutating func read(_ at: Int, of function: any PCIFunction) throws(PCIError) {
    let length = Int(
      try function.readConfiguration(at: at + VirtioPCI.Capability.length, width: .byte))
    guard length >= VirtioPCI.Capability.minimumLength, at + length <= 256 else {
      throw .malformedCapability(at: at, reason: "\(length) bytes long")
    }
    let type = UInt8(
      truncatingIfNeeded: try function.readConfiguration(
        at: at + VirtioPCI.Capability.type, width: .byte))
    let bar = Int(try function.readConfiguration(at: at + VirtioPCI.Capability.bar, width: .byte))
    // 4.1.4.1: unknown kinds and reserved BARs are ignored.
    guard let kind = VirtioPCI.Structure(rawValue: type), kind != .configurationAccess, bar <= 5
    else { return }
    let offset = try function.readConfiguration(
      at: at + VirtioPCI.Capability.offset, width: .dword)
    let byteCount = try function.readConfiguration(
      at: at + VirtioPCI.Capability.byteCount, width: .dword)
    func window(atLeast minimum: Int) throws(PCIError) -> RegisterWindow {
      guard Int(byteCount) >= minimum else {
        throw .malformedCapability(at: at, reason: "its structure has only \(byteCount) bytes")
      }
      return try function.openRegion(bar: bar).window(
        at: UInt64(offset), byteCount: UInt64(byteCount))
    }
    switch kind {
    case .common where common == nil:
      common = try window(atLeast: VirtioPCI.Common.minimumByteCount)
    case .notify where notify == nil:
      guard length >= VirtioPCI.Capability.minimumLength + 4 else {
        throw .malformedCapability(at: at, reason: "lacks the notification multiplier")
      }
      notifyMultiplier = try function.readConfiguration(
        at: at + VirtioPCI.Capability.notifyMultiplier, width: .dword)
      notify = try window(atLeast: 2)
    case .interruptStatus where interruptStatus == nil:
      interruptStatus = try window(atLeast: 1)
    case .device where device == nil:
      device = try window(atLeast: VirtioNetConfiguration.mtu)
    default: break
    }
  }
}
