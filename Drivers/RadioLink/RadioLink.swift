import Driver
import Memory
import PCI
import Rings

/// The driver for RadioLink functions (RadioLink.md): cellular modems whose link layer repeats what is lost.
public struct RadioLink: NetworkDriver, ~Copyable {
  public static let name = "radio-link"
  public static let matches = [PCIMatch(vendor: 0x1af4, device: 0x10f2)]

  public private(set) var interface: NetworkInterface
  private let function: any PCIFunction
  private let registers: RegisterWindow
  private let interruptsAreOn: Bool
  private var queuePair: RadioLinkQueuePair?

  public init(_ resources: consuming DriverResources) throws(DriverError) {
    try self.init(resources, delivery: .early)
  }

  /// - Parameter delivery: the order in which packets are handed up.
  public init(
    _ resources: consuming DriverResources, delivery: PacketDelivery
  ) throws(DriverError) {
    let function = resources.function
    let plan = resources.interrupts
    let registers = try Self.openRegisters(function)
    let limits = try RadioLinkLimits(registers, name: function.name)
    let rings = try Self.makeRings(&resources, limits)
    interruptsAreOn = try Self.connectInterrupts(function, plan)
    rings.write(to: registers)
    let status = registers.read32(at: RadioLinkRegister.status)
    interface = NetworkInterface(
      macAddress: limits.macAddress, mtu: limits.mtu,
      linkIsUp: status & RadioLinkValue.linkUp != 0, queuePairs: 1, offloads: [],
      features: ["pdu=\(limits.payloadBytes)", "window=\(limits.window)"])
    queuePair = RadioLinkQueuePair(
      registers: registers, rings: rings, arena: resources.arena, limits: limits,
      delivery: delivery)
    self.function = function
    self.registers = registers
  }

  /// The function's registers, after a reset.
  private static func openRegisters(
    _ function: any PCIFunction
  ) throws(DriverError) -> RegisterWindow {
    let registers: RegisterWindow
    do throws(PCIError) {
      registers = try function.openRegion(bar: 0).window(
        at: 0, byteCount: RadioLinkRegister.byteCount)
      try function.setBusMaster(false)
    } catch {
      throw .pci(error)
    }
    try reset(registers)
    let identity = registers.read32(at: RadioLinkRegister.id)
    let version = registers.read32(at: RadioLinkRegister.version)
    guard identity == RadioLinkValue.id, version == RadioLinkValue.version else {
      throw .unsupported("\(function.name) is no RadioLink of version 1")
    }
    return registers
  }

  private static func makeRings(
    _ resources: inout DriverResources, _ limits: RadioLinkLimits
  ) throws(DriverError) -> RadioLinkRings {
    try RadioLinkRings(&resources.rings, size: resources.ringSize, limit: limits.ringLimit)
  }

  /// Section 7.
  private static func reset(_ registers: RegisterWindow) throws(DriverError) {
    registers.write32(RadioLinkValue.reset, at: RadioLinkRegister.control)
    // Each read is a round trip to the device, of a microsecond or more.
    for _ in 0..<1_000_000 {
      let control = registers.read32(at: RadioLinkRegister.control)
      if control == .max { throw .deviceGone }
      if control & RadioLinkValue.reset == 0 { return }
    }
    throw .resetTimeout
  }

  /// Section 6: vector 0 for the link, vector 1 for the queue pair, which a host that polls leaves out.
  private static func connectInterrupts(
    _ function: any PCIFunction, _ plan: InterruptPlan
  ) throws(DriverError) -> Bool {
    let eventfds = [plan.configuration] + plan.queues.prefix(1)
    if eventfds.allSatisfy({ $0 < 0 }) { return false }
    do throws(PCIError) {
      try function.enableInterrupts(.msix, eventfds: eventfds)
    } catch {
      throw .pci(error)
    }
    return true
  }

  public mutating func takeQueuePair(_ index: Int) -> RadioLinkQueuePair {
    guard index == 0, let pair = queuePair.take() else {
      preconditionFailure("queue pair \(index) does not exist or was taken before")
    }
    return pair
  }

  public mutating func start() throws(DriverError) {
    do throws(PCIError) {
      try function.setBusMaster(true)
    } catch {
      throw .pci(error)
    }
    registers.write32(RadioLinkValue.enable, at: RadioLinkRegister.control)
  }

  public mutating func stop() {
    // A device that does not finish its reset may still do DMA: without bus mastering it cannot.
    try? Self.reset(registers)
    try? function.setBusMaster(false)
    if interruptsAreOn { try? function.disableInterrupts(.msix) }
  }

  public mutating func handleConfigurationChange() throws(DriverError) -> Bool {
    let status = registers.read32(at: RadioLinkRegister.status)
    if status == .max { throw .deviceGone }
    if status & RadioLinkValue.failed != 0 { throw .deviceNeedsReset }
    registers.write32(
      registers.read32(at: RadioLinkRegister.events), at: RadioLinkRegister.events)
    let isUp = status & RadioLinkValue.linkUp != 0
    if isUp == interface.linkIsUp { return false }
    interface.linkIsUp = isUp
    return true
  }

  /// The link has two ends: all that arrives is received anyway.
  public mutating func setPromiscuous(_ on: Bool) throws(DriverError) {}
  public mutating func setFilter(
    unicast: [MACAddress], multicast: [MACAddress]?
  ) throws(DriverError) {}

  public mutating func setReceiveCoalescing(
    packets: UInt32, microseconds: UInt32
  ) throws(DriverError) {
    throw .unsupported("\(function.name) does not offer interrupt coalescing")
  }
}
