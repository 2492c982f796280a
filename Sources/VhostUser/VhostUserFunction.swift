import Driver
import PCI
import Virtio
import VirtioTransports

/// A network device behind a vhost-user socket. It has no registers: a configuration space is there so that hosts find
/// the driver for it, and a ``VhostUserTransport`` for all else. Control path, one thread.
///
/// In one process, without supervisor and host:
///
///     let access = try VhostUserAccess(path: "/run/switch.sock")
///     try access.mapDMA(rings, iova: 0x1000_0000, rights: [.read, .write])
///     try access.mapDMA(packets, iova: 0x2000_0000, rights: [.read, .write])
///     let function = try VhostUserFunction(negotiated: access.descriptor, name: access.name)
///     var driver = try VirtioNet(DriverResources(function: function, …))
public final class VhostUserFunction: VirtioFunction {
  public let name: String
  private(set) var connection: VhostUserConnection
  let doorbells: VhostUserDoorbells
  private(set) var eventfds: [Int32] = []
  /// Where the back-end has none: the same for as long as this object lives, across connections.
  let localAddress: MACAddress
  private let timeout: Int
  private var command: UInt32 = 0

  /// - Parameters:
  ///   - negotiated: the descriptor of a ``VhostUserAccess`` with all memory mapped. It stays the caller's.
  ///   - doorbells: for as many queue pairs as are going to be used.
  ///   - timeout: milliseconds that the back-end has for each answer.
  public init(
    negotiated: Int32, name: String = "vhost-user",
    doorbells: VhostUserDoorbells = VhostUserDoorbells(queuePairs: 1), timeout: Int = 5000
  ) throws(PCIError) {
    self.name = name
    self.doorbells = doorbells
    self.timeout = timeout
    localAddress = .randomLocal()
    connection = VhostUserConnection(
      descriptor: negotiated, closes: false, name: name, timeout: timeout)
    try connection.takeOver()
  }

  /// Goes on over another socket after the back-end has come back. The driver must have been stopped, and is made anew.
  /// - Parameter negotiated: as in ``init(negotiated:name:doorbells:timeout:)``.
  public func replaceSocket(_ negotiated: Int32) throws(PCIError) {
    let new = VhostUserConnection(
      descriptor: negotiated, closes: false, name: name, timeout: timeout)
    try new.takeOver()
    connection = new
  }

  public func makeTransport() throws(DriverError) -> any VirtioTransport {
    try VhostUserTransport(self)
  }

  // MARK: PCI

  public func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    guard offset >= 0, offset + width.rawValue <= 256 else { return .max }
    // Vendor and device, command, and nothing more: no capabilities.
    let words: [Int: UInt32] = [
      0: UInt32(VirtioPCI.networkDevice) << 16 | UInt32(VirtioPCI.vendor), 4: command,
      8: 0x0200_0001,
    ]
    let value = (words[offset & ~3] ?? 0) >> UInt32(8 * (offset & 3))
    return width == .dword ? value : value & ((1 << UInt32(8 * width.rawValue)) - 1)
  }

  public func writeConfiguration(
    _ value: UInt32, at offset: Int, width: RegisterWidth
  ) throws(PCIError) {
    if offset == 4 { command = value & 0xffff }
  }

  public func openRegion(bar: Int) throws(PCIError) -> RegisterRegion { throw .noRegion(bar: bar) }

  /// A call descriptor for each ring there can be, and one for configuration changes, which never come.
  public var interrupts: InterruptCapability {
    InterruptCapability(kind: .msix, vectors: 1 + doorbells.rings)
  }

  public func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {
    guard kind == .msix, eventfds.count <= interrupts.vectors else {
      throw .interruptsUnsupported(kind: kind, vectors: eventfds.count)
    }
    self.eventfds = eventfds
  }

  /// Rings that are set up later signal nothing; those that run are stopped by the driver's reset.
  public func disableInterrupts(_ kind: InterruptKind) throws(PCIError) { eventfds = [] }
  public func unmaskINTx() throws(PCIError) {}
  public func reset() throws(PCIError) { throw .resetUnsupported }
}
