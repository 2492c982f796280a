import Driver
import Memory
import PCI

/// Any driver, on a function whose run is recorded or replayed (``TracedFunction``). Each verb is marked with its arguments
/// before it is called, and what came out is marked after it: so a recorded run can be repeated by ``DriverReplay``, and
/// what the driver hands out is compared too. The driver and its queue pairs may have a thread each: one call passes at a
/// time.
///
/// Without it nothing is traced, and nothing is paid: a host is compiled for the driver and for the traced driver.
public struct TracedDriver<D: NetworkDriver & ~Copyable>: NetworkDriver, ~Copyable {
  public static var name: String { D.name }
  public static var matches: [PCIMatch] { D.matches }
  public static var receiveBufferBytes: Int? { D.receiveBufferBytes }
  public static var receiveHeaderBytes: Int { D.receiveHeaderBytes }
  public static var deviceStatistics: [String] { D.deviceStatistics }
  public static var optionalFeatures: [String] { D.optionalFeatures }

  private var driver: D
  private let function: any TracedFunction
  private let arena: DMARange

  /// - Parameter resources: their function is a ``TracedFunction``.
  public init(_ resources: consuming DriverResources) throws(DriverError) {
    guard let function = resources.function as? any TracedFunction else {
      throw .unsupported("\(resources.function.name) is neither recorded nor replayed")
    }
    let arena = resources.arena
    let plan = resources.interrupts
    function.mark(
      .initialize(
        TracedCall.Setup(
          driver: D.name, queuePairs: resources.queuePairs, ringSize: resources.ringSize,
          mtu: resources.mtu, interrupts: ([plan.configuration] + plan.queues).map { $0 >= 0 },
          requiresPlatformAccess: resources.requiresPlatformAccess, without: resources.without)))
    do throws(DriverError) {
      driver = try D(resources)
    } catch {
      function.outcome("failed: \(error)")
      throw error
    }
    self.function = function
    self.arena = arena
    function.outcome("made: \(text(driver.interface))")
  }

  public var interface: NetworkInterface { driver.interface }

  public mutating func takeQueuePair(_ index: Int) -> TracedQueuePair<D.QueuePair> {
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.pair(index, .take))
    return TracedQueuePair(driver.takeQueuePair(index), index: index, function, arena: arena)
  }

  public mutating func start() throws(DriverError) {
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.start)
    try marking { driver throws(DriverError) in try driver.start() }
  }

  public mutating func stop() {
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.stop)
    driver.stop()
  }

  public mutating func handleConfigurationChange() throws(DriverError) -> Bool {
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.handleConfigurationChange)
    var changed = false
    try marking { driver throws(DriverError) in
      changed = try driver.handleConfigurationChange()
    }
    if changed { function.outcome("changed: \(text(driver.interface))") }
    return changed
  }

  public mutating func setPromiscuous(_ on: Bool) throws(DriverError) {
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.setPromiscuous(on))
    try marking { driver throws(DriverError) in try driver.setPromiscuous(on) }
  }

  public mutating func setFilter(
    unicast: [MACAddress], multicast: [MACAddress]?
  ) throws(DriverError) {
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.setFilter(unicast: unicast, multicast: multicast))
    try marking { driver throws(DriverError) in
      try driver.setFilter(unicast: unicast, multicast: multicast)
    }
  }

  public mutating func setReceiveCoalescing(
    packets: UInt32, microseconds: UInt32
  ) throws(DriverError) {
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.setReceiveCoalescing(packets: packets, microseconds: microseconds))
    try marking { driver throws(DriverError) in
      try driver.setReceiveCoalescing(packets: packets, microseconds: microseconds)
    }
  }

  public mutating func readDeviceStatistics() -> [UInt64] {
    function.exclusion.enter()
    defer { function.exclusion.leave() }
    function.mark(.readDeviceStatistics)
    let counters = driver.readDeviceStatistics()
    function.outcome((["counted:"] + counters.map { "\($0)" }).joined(separator: " "))
    return counters
  }

  /// A call that gives nothing but an error.
  private mutating func marking(
    _ call: (inout D) throws(DriverError) -> Void
  ) throws(DriverError) {
    do throws(DriverError) {
      try call(&driver)
    } catch {
      function.outcome("failed: \(error)")
      throw error
    }
  }
}

extension TracedFunction {
  func mark(_ call: TracedCall) { mark(call.description) }
}

private func text(_ interface: NetworkInterface) -> String {
  "\(interface.macAddress) mtu \(interface.mtu) link \(interface.linkIsUp ? "up" : "down") "
    + "pairs \(interface.queuePairs) offloads \(interface.offloads.rawValue) "
    + interface.features.joined(separator: ",")
}
