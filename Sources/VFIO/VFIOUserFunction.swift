import Glibc
import Memory
import PCI
import VFIOUserMessages

/// A PCI function that another process plays, driven over a vfio-user socket.
///
/// Register stores go as writes without a reply, and loads wait for theirs: the server works them off in order, as a
/// PCI bus does with posted writes. Loads of a device that is gone are all ones.
public final class VFIOUserFunction: PCIFunction {
  public let name: String
  let connection: VFIOUserConnection
  private let device: DeviceInfoMessage
  private var regions: [UInt32: VFIOUserRegion] = [:]
  private var enabled: InterruptKind?

  /// - Parameters:
  ///   - negotiated: a socket over which the version has been agreed on. It stays the caller's.
  ///   - maximumDescriptors: most that the server takes in a message. Every server takes one.
  ///   - served: memory that the server may ask for by message; it gets an errno for all other.
  ///   - timeout: milliseconds that the server has for each answer.
  public init(
    negotiated: Int32, name: String = "vfio-user", maximumDescriptors: Int = 1,
    served: [DMARange] = [], timeout: Int = 5000
  ) throws(PCIError) {
    self.name = name
    let connection = VFIOUserConnection(
      descriptor: negotiated, closes: false, name: name,
      timeout: UInt64(max(1, timeout)) * 1_000_000,
      maximumDescriptors: max(1, min(maximumDescriptors, MessageLimits.descriptorCount)),
      firstIdentifier: 0)
    connection.served = served
    self.connection = connection
    let reply = try connection.exchange(.deviceInfo, DeviceInfoMessage().bytes)
    guard let device = DeviceInfoMessage(reply.payload),
      device.flags & DeviceInfoMessage.isPCI != 0,
      device.regions > RegionIndex.configuration, device.regions <= 256
    else { throw connection.broken("it serves no PCI device") }
    self.device = device
  }

  /// Answers what the server has asked (DMA by message) since the last exchange, without waiting. Not needed with
  /// servers that map memory.
  public func serveRequests() throws(PCIError) { try connection.serveRequests() }

  // MARK: Configuration space

  public func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    UInt32(
      truncatingIfNeeded: try read(
        RegionIndex.configuration, UInt64(truncatingIfNeeded: offset), width.rawValue))
  }

  public func writeConfiguration(_ value: UInt32, at offset: Int, width: RegisterWidth)
    throws(PCIError)
  {
    try write(
      UInt64(value), RegionIndex.configuration, UInt64(truncatingIfNeeded: offset), width.rawValue)
  }

  func read(_ region: UInt32, _ offset: UInt64, _ width: Int) throws(PCIError) -> UInt64 {
    var request = ByteWriter()
    RegionAccessMessage(offset: offset, region: region, count: UInt32(width)).write(to: &request)
    let reply = try connection.exchange(.regionRead, request.bytes)
    var reader = ByteReader(reply.payload)
    guard let access = RegionAccessMessage(&reader), Int(access.count) == width,
      let data = reader.readBytes(width)
    else { throw connection.broken("it answered a read with too few bytes") }
    return data.reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  func write(_ value: UInt64, _ region: UInt32, _ offset: UInt64, _ width: Int) throws(PCIError) {
    var request = ByteWriter()
    RegionAccessMessage(offset: offset, region: region, count: UInt32(width)).write(to: &request)
    for index in 0..<width { request.write8(UInt8(truncatingIfNeeded: value >> UInt64(8 * index))) }
    _ = try connection.exchange(.regionWrite, request.bytes)
  }

  // MARK: Regions

  func region(_ index: UInt32) throws(PCIError) -> VFIOUserRegion? {
    guard index < device.regions else { return nil }
    if let region = regions[index] { return region }
    let region = try VFIOUserRegion(index, connection)
    regions[index] = region
    return region
  }

  public func openRegion(bar: Int) throws(PCIError) -> RegisterRegion {
    guard (0...5).contains(bar), let region = try region(UInt32(bar)), region.byteCount > 0 else {
      throw .noRegion(bar: bar)
    }
    // The region is valid as long as this function, which therefore outlives every use of the pointer.
    let calls = RegisterCalls(
      context: Unmanaged.passUnretained(self).toOpaque(),
      load: { context, bar, offset, byteCount in
        Unmanaged<VFIOUserFunction>.fromOpaque(context)._withUnsafeGuaranteedRef {
          $0.load(bar, offset, byteCount)
        }
      },
      store: { context, bar, offset, byteCount, value in
        Unmanaged<VFIOUserFunction>.fromOpaque(context)._withUnsafeGuaranteedRef {
          $0.connection.post(
            region: UInt32(bar), offset: offset, width: Int(byteCount), value: value)
        }
      })
    return RegisterRegion(
      bar: bar, byteCount: region.byteCount, calls: calls, mapped: region.mappedAreas)
  }

  private func load(_ bar: Int32, _ offset: UInt64, _ byteCount: Int32) -> UInt64 {
    do {
      return try read(UInt32(bar), offset, Int(byteCount))
    } catch {
      return .max
    }
  }

  // MARK: Interrupts

  private func info(_ kind: InterruptKind) throws(PCIError) -> InterruptInfoMessage {
    guard kind.rawValue < device.interrupts else {
      return InterruptInfoMessage(index: kind.rawValue)
    }
    let reply = try connection.exchange(
      .interruptInfo, InterruptInfoMessage(index: kind.rawValue).bytes)
    guard let info = InterruptInfoMessage(reply.payload), info.index == kind.rawValue,
      info.count <= 2048
    else { throw connection.broken("its interrupt info makes no sense") }
    return info
  }

  public var interrupts: InterruptCapability {
    get throws(PCIError) {
      for kind in [InterruptKind.msix, .msi, .intx] {
        let info = try info(kind)
        if info.count > 0, info.flags & InterruptInfoMessage.eventfd != 0 {
          return InterruptCapability(kind: kind, vectors: Int(info.count))
        }
      }
      return InterruptCapability(kind: .intx, vectors: 0)
    }
  }

  private func set(
    _ data: SetInterruptsMessage.Data, _ action: SetInterruptsMessage.Action, _ kind: InterruptKind,
    start: Int = 0, count: Int = 0, descriptors: [Int32] = []
  ) throws(PCIError) {
    let message = SetInterruptsMessage(
      data: data, action: action, index: kind.rawValue, start: UInt32(start), count: UInt32(count))
    _ = try connection.exchange(.setInterrupts, message.bytes, descriptors: descriptors)
  }

  public func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {
    let info = try info(kind)
    guard eventfds.count <= info.count, info.flags & InterruptInfoMessage.eventfd != 0 else {
      throw .interruptsUnsupported(kind: kind, vectors: eventfds.count)
    }
    if let enabled { try disableInterrupts(enabled) }
    var start = 0
    while start < eventfds.count {
      guard eventfds[start] >= 0 else {
        start += 1
        continue
      }
      var end = start + 1
      while end < eventfds.count, eventfds[end] >= 0, end - start < connection.maximumDescriptors {
        end += 1
      }
      try set(
        .eventfd, .trigger, kind, start: start, count: end - start,
        descriptors: Array(eventfds[start..<end]))
      start = end
    }
    enabled = kind
    if info.flags & InterruptInfoMessage.maskable != 0, !eventfds.isEmpty {
      try unmask(kind, count: eventfds.count)
    }
    switch kind {
    case .msix: try openVectorTable(vectors: eventfds.count)
    case .intx: try setCommand(clear: 1 << 10)
    case .msi: break
    }
  }

  /// A server may say that vectors can be masked and yet take no such message: the table then decides.
  private func unmask(_ kind: InterruptKind, count: Int) throws(PCIError) {
    do {
      try set(.none, .unmask, kind, count: count)
    } catch {
      guard case .system(let call, _) = error, call.hasPrefix("vfio-user") else { throw error }
    }
  }

  public func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {
    try set(.none, .trigger, kind)
    if kind == .msix, let capability = try msixCapability() {
      let control = try readConfiguration(at: capability + 2, width: .word)
      try writeConfiguration(control & ~(1 << 15), at: capability + 2, width: .word)
    }
    enabled = nil
  }

  public func unmaskINTx() throws(PCIError) {
    try set(.none, .unmask, .intx, count: 1)
  }

  private func msixCapability() throws(PCIError) -> Int? {
    try capabilities().first { $0.identifier == PCICapability.msix }?.offset
  }

  private func setCommand(clear bits: UInt32) throws(PCIError) {
    let command = try readConfiguration(at: 0x04, width: .word)
    if command & bits != 0 { try writeConfiguration(command & ~bits, at: 0x04, width: .word) }
  }

  /// Turns MSI-X on and unmasks the vectors in the function's own table (PCI Local Bus 3.0, 6.8.2). The kernel does
  /// this behind VFIO; a vfio-user server may leave it to its client.
  private func openVectorTable(vectors: Int) throws(PCIError) {
    let enable: UInt32 = 1 << 15
    let functionMask: UInt32 = 1 << 14
    guard let capability = try msixCapability() else { return }
    let control = try readConfiguration(at: capability + 2, width: .word)
    try writeConfiguration(control | enable | functionMask, at: capability + 2, width: .word)
    let place = try readConfiguration(at: capability + 4, width: .dword)
    let table = UInt64(place & ~7)
    if let region = try region(place & 7), region.isReadWrite {
      let entry: UInt64 = 16
      for vector in 0..<UInt64(vectors) {
        let word = table + entry * vector + 12
        guard word + 4 <= region.byteCount else { break }
        let mask = try read(place & 7, word, 4)
        if mask & 1 != 0 { try write(mask & ~1, place & 7, word, 4) }
      }
    }
    try writeConfiguration(
      (control | enable) & ~functionMask, at: capability + 2, width: .word)
  }

  // MARK: Memory

  /// Lets the device reach memory, while it runs.
  /// - Parameter descriptor: the memory, from its first byte; it stays the caller's.
  public func mapDMA(
    _ descriptor: Int32, from offset: UInt64 = 0, iova: UInt64, byteCount: UInt64,
    rights: DMARights
  ) throws(PCIError) {
    let message = DMAMapMessage(
      flags: (rights.contains(.read) ? DMAMapMessage.readable : 0)
        | (rights.contains(.write) ? DMAMapMessage.writable : 0),
      offset: offset, address: iova, size: byteCount)
    _ = try connection.exchange(.dmaMap, message.bytes, descriptors: [descriptor])
  }

  /// Takes it away again.
  public func unmapDMA(iova: UInt64, byteCount: UInt64) throws(PCIError) {
    _ = try connection.exchange(
      .dmaUnmap, DMAUnmapMessage(address: iova, size: byteCount).bytes)
  }

  // MARK: Reset

  public func reset() throws(PCIError) {
    guard device.flags & DeviceInfoMessage.supportsReset != 0 else { throw .resetUnsupported }
    _ = try connection.exchange(.deviceReset)
  }
}
