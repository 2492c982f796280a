import CLinux
import Glibc
import PCI

/// A PCI function behind a VFIO device descriptor of the kernel (linux/vfio.h). It needs no other descriptor and no
/// path: which memory the device may reach is decided by whoever holds the container.
public final class KernelVFIOFunction: PCIFunction {
  public let name: String
  private let descriptor: Int32
  private let requests: any DeviceRequests
  private let canReset: Bool
  private let interruptCount: UInt32
  private let configuration: KernelVFIORegion
  private var regions: [Int: KernelVFIORegion] = [:]
  private var enabled: InterruptKind?

  /// - Parameter descriptor: from VFIO_GROUP_GET_DEVICE_FD. It stays the caller's and must outlive this object.
  public convenience init(descriptor: Int32, name: String) throws(PCIError) {
    try self.init(descriptor: descriptor, name: name, requests: KernelRequests())
  }

  init(descriptor: Int32, name: String, requests: any DeviceRequests) throws(PCIError) {
    self.descriptor = descriptor
    self.name = name
    self.requests = requests
    var info = vfio_device_info()
    info.argsz = UInt32(MemoryLayout<vfio_device_info>.size)
    let result = requests.request(LINUX_VFIO_DEVICE_GET_INFO, of: descriptor, &info)
    guard result >= 0 else { throw .system(call: "VFIO device info of \(name)", errno: -result) }
    guard info.flags & UInt32(VFIO_DEVICE_FLAGS_PCI) != 0,
      info.num_regions > UInt32(VFIO_PCI_CONFIG_REGION_INDEX)
    else { throw .missingCapability("PCI configuration space") }
    canReset = info.flags & UInt32(VFIO_DEVICE_FLAGS_RESET) != 0
    interruptCount = info.num_irqs
    configuration = try KernelVFIORegion(
      UInt32(VFIO_PCI_CONFIG_REGION_INDEX), of: descriptor, requests, maps: false)
  }

  // MARK: Configuration space

  private func checkConfiguration(_ offset: Int, _ width: RegisterWidth) throws(PCIError) {
    let count = UInt64(width.rawValue)
    guard offset >= 0, offset % width.rawValue == 0, configuration.byteCount >= count,
      UInt64(offset) <= configuration.byteCount - count
    else { throw .system(call: "access at \(offset) of configuration space", errno: EINVAL) }
  }

  public func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    try checkConfiguration(offset, width)
    var value: UInt64 = 0
    let place = off_t(configuration.offset + UInt64(offset))
    let count = pread(descriptor, &value, width.rawValue, place)
    guard count == width.rawValue else {
      throw .system(call: "read of configuration space", errno: count < 0 ? errno : EIO)
    }
    return UInt32(truncatingIfNeeded: UInt64(littleEndian: value))
  }

  public func writeConfiguration(_ value: UInt32, at offset: Int, width: RegisterWidth)
    throws(PCIError)
  {
    try checkConfiguration(offset, width)
    var value = value.littleEndian
    let place = off_t(configuration.offset + UInt64(offset))
    let count = pwrite(descriptor, &value, width.rawValue, place)
    guard count == width.rawValue else {
      throw .system(call: "write to configuration space", errno: count < 0 ? errno : EIO)
    }
  }

  // MARK: Regions

  public func openRegion(bar: Int) throws(PCIError) -> RegisterRegion {
    guard (0...5).contains(bar) else { throw .noRegion(bar: bar) }
    let region: KernelVFIORegion
    if let known = regions[bar] {
      region = known
    } else {
      region = try KernelVFIORegion(UInt32(bar), of: descriptor, requests, maps: true)
      regions[bar] = region
    }
    guard region.byteCount > 0 else { throw .noRegion(bar: bar) }
    // The region is valid as long as this function, which therefore outlives every use of the pointer.
    let calls = RegisterCalls(
      context: Unmanaged.passUnretained(self).toOpaque(),
      load: { context, bar, offset, byteCount in
        Unmanaged<KernelVFIOFunction>.fromOpaque(context)._withUnsafeGuaranteedRef {
          $0.load(Int(bar), offset, Int(byteCount))
        }
      },
      store: { context, bar, offset, byteCount, value in
        Unmanaged<KernelVFIOFunction>.fromOpaque(context)._withUnsafeGuaranteedRef {
          $0.store(value, Int(bar), offset, Int(byteCount))
        }
      })
    return RegisterRegion(
      bar: bar, byteCount: region.byteCount, calls: calls, mapped: region.mappedAreas)
  }

  /// All ones where the function does not answer, as a bus does it.
  private func load(_ bar: Int, _ offset: UInt64, _ byteCount: Int) -> UInt64 {
    var value: UInt64 = 0
    guard let region = regions[bar], byteCount <= 8,
      pread(descriptor, &value, byteCount, off_t(region.offset + offset)) == byteCount
    else { return .max }
    return UInt64(littleEndian: value)
  }

  private func store(_ value: UInt64, _ bar: Int, _ offset: UInt64, _ byteCount: Int) {
    guard let region = regions[bar], byteCount <= 8 else { return }
    var value = value.littleEndian
    // A store to a function that is gone is lost, as on a bus; the next load tells.
    _ = pwrite(descriptor, &value, byteCount, off_t(region.offset + offset))
  }

  // MARK: Interrupts

  /// How many vectors of the kind can be told to signal eventfds.
  private func vectors(_ kind: InterruptKind) throws(PCIError) -> Int {
    guard kind.rawValue < interruptCount else { return 0 }
    var info = vfio_irq_info()
    info.argsz = UInt32(MemoryLayout<vfio_irq_info>.size)
    info.index = kind.rawValue
    let result = requests.request(LINUX_VFIO_DEVICE_GET_IRQ_INFO, of: descriptor, &info)
    guard result >= 0 else { throw .system(call: "VFIO interrupt info", errno: -result) }
    guard info.flags & UInt32(VFIO_IRQ_INFO_EVENTFD) != 0, info.count <= 2048 else { return 0 }
    return Int(info.count)
  }

  public var interrupts: InterruptCapability {
    get throws(PCIError) {
      for kind in [InterruptKind.msix, .msi, .intx] {
        let count = try vectors(kind)
        if count > 0 { return InterruptCapability(kind: kind, vectors: count) }
      }
      return InterruptCapability(kind: .intx, vectors: 0)
    }
  }

  /// struct vfio_irq_set: argsz, flags, index, start, count, then the descriptors.
  private func setInterrupts(
    _ kind: InterruptKind, flags: Int32, count: Int, descriptors: [Int32] = []
  ) throws(PCIError) {
    let size = MemoryLayout<vfio_irq_set>.size + 4 * descriptors.count
    var words: [UInt32] = [UInt32(size), UInt32(flags), kind.rawValue, 0, UInt32(count)]
    words += descriptors.map { UInt32(bitPattern: $0) }
    let result = words.withUnsafeMutableBytes {
      requests.request(LINUX_VFIO_DEVICE_SET_IRQS, of: descriptor, $0.baseAddress)
    }
    guard result >= 0 else { throw .system(call: "VFIO set interrupts", errno: -result) }
  }

  public func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {
    guard !eventfds.isEmpty, eventfds.count <= (try vectors(kind)) else {
      throw .interruptsUnsupported(kind: kind, vectors: eventfds.count)
    }
    // The kernel lets one kind be on at a time, and its number of vectors does not grow while it is.
    if let enabled { try disableInterrupts(enabled) }
    try setInterrupts(
      kind, flags: VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, count: eventfds.count,
      descriptors: eventfds)
    enabled = kind
    guard kind == .intx else { return }
    // A driver before us may have left the interrupt switched off in the command register (bit 10).
    let command = try readConfiguration(at: 0x04, width: .word)
    if command & 1 << 10 != 0 {
      try writeConfiguration(command & ~(1 << 10), at: 0x04, width: .word)
    }
  }

  public func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {
    guard enabled == kind else { return }
    try setInterrupts(
      kind, flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, count: 0)
    enabled = nil
  }

  /// Also those that a process before this one has switched on, on the same descriptor, and left behind.
  func disableAllInterrupts() {
    for kind in [InterruptKind.msix, .msi, .intx] where kind.rawValue < interruptCount {
      // The kernel refuses this for kinds that are not on.
      try? setInterrupts(
        kind, flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, count: 0)
    }
    enabled = nil
  }

  public func unmaskINTx() throws(PCIError) {
    try setInterrupts(
      .intx, flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, count: 1)
  }

  // MARK: Reset

  /// A function on a root bus without a reset of its own has none: the kernel answers EINVAL or ENOTTY.
  public func reset() throws(PCIError) {
    guard canReset else { throw .resetUnsupported }
    let result = requests.request(LINUX_VFIO_DEVICE_RESET, of: descriptor, value: 0)
    switch -result {
    case 0: return
    case EINVAL, ENOTTY: throw .resetUnsupported
    case let error: throw .system(call: "VFIO reset of \(name)", errno: error)
    }
  }
}
