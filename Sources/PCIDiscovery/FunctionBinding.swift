import Glibc

/// Takes a function from the kernel's driver for vfio-pci, and gives it back (Linux, Documentation/ABI/testing/
/// sysfs-bus-pci: driver_override, unbind, bind, drivers_probe). Needs root. Each step is read back; a step that
/// fails undoes those before it.
public struct FunctionBinding: Sendable {
  static let vfio = "vfio-pci"
  private let bus: PCIBus
  private var machine: Machine { bus.machine }

  public init(machine: Machine = Machine()) { bus = PCIBus(machine: machine) }

  /// What a binding came to.
  public struct Outcome: Sendable, Equatable {
    /// The driver that had the function, or has it again.
    public var formerDriver: String?
    /// False where everything was already as asked.
    public var changed: Bool
    /// What stood against it and was overridden.
    public var overridden: [FunctionUse]
  }

  /// Binds a function to vfio-pci.
  /// - Parameters:
  ///   - force: takes it even where it is in use.
  ///   - owner: a user and group who may then open the IOMMU group, in place of root alone.
  @discardableResult
  public func bind(
    _ function: DiscoveredFunction, force: Bool = false, owner: (user: UInt32, group: UInt32)? = nil
  ) throws(BindingError) -> Outcome {
    let address = function.address
    guard !function.isBridge else { throw .isBridge(address) }
    guard let group = function.group else { throw .noIOMMU(address) }
    if function.isBoundToVFIO {
      if let owner { try give(group, to: owner) }
      return Outcome(
        formerDriver: former(of: address), changed: false, overridden: [])
    }
    let uses = bus.uses(of: function)
    guard uses.isEmpty || force else { throw .inUse(address, uses) }
    guard machine.exists("/sys/bus/pci/drivers/\(Self.vfio)") else { throw .noDriver(Self.vfio) }

    let record = BindingRecord(machine: machine, address: address)
    try record.write(function.driver ?? "")
    do throws(BindingError) {
      try take(function)
      try waitForNode(group)
      if let owner { try give(group, to: owner) }
    } catch {
      undo(function)
      record.remove()
      throw error
    }
    return Outcome(formerDriver: function.driver, changed: true, overridden: uses)
  }

  /// Gives a function back to the driver that had it; where nobody wrote that down, to whichever the kernel chooses.
  @discardableResult
  public func unbind(
    _ function: DiscoveredFunction, force: Bool = false
  ) throws(BindingError) -> Outcome {
    let address = function.address
    guard function.isBoundToVFIO, let driver = function.driver else {
      throw .notBound(address, driver: function.driver)
    }
    // The kernel would wait until that process lets go, for ever if need be.
    let uses = bus.processUses(function)
    guard uses.isEmpty || force else { throw .inUse(address, uses) }
    let record = BindingRecord(machine: machine, address: address)
    let former = record.read()
    try override(address, with: nil)
    try write("\(address)", "/sys/bus/pci/drivers/\(driver)/unbind")
    guard bus.driver(of: address) == nil else {
      throw .notTaken(address, by: "the kernel", driver: bus.driver(of: address))
    }
    try giveBack(address, to: former)
    record.remove()
    return Outcome(
      formerDriver: bus.driver(of: address), changed: true, overridden: uses)
  }

  /// Whom the function belonged to before it was bound to VFIO; nil where it had no driver or nobody knows.
  public func former(of address: PCIAddress) -> String? {
    let driver = BindingRecord(machine: machine, address: address).read()
    return driver == "" ? nil : driver
  }

  // MARK: Steps

  private func take(_ function: DiscoveredFunction) throws(BindingError) {
    let address = function.address
    try override(address, with: Self.vfio)
    if let driver = function.driver {
      try write("\(address)", "/sys/bus/pci/drivers/\(driver)/unbind")
      guard bus.driver(of: address) == nil else {
        throw .notTaken(address, by: Self.vfio, driver: bus.driver(of: address))
      }
    }
    try write("\(address)", "/sys/bus/pci/drivers_probe")
    let driver = bus.driver(of: address)
    guard driver == Self.vfio else { throw .notTaken(address, by: Self.vfio, driver: driver) }
  }

  /// nil takes the override away.
  private func override(_ address: PCIAddress, with driver: String?) throws(BindingError) {
    let path = "/sys/bus/pci/devices/\(address)/driver_override"
    try write((driver ?? "") + "\n", path)
    let found = machine.text(path)
    let wanted = driver.map { [$0] } ?? ["", "(null)"]
    guard let found, wanted.contains(found) else {
      throw .notTaken(address, by: driver ?? "no driver", driver: bus.driver(of: address))
    }
  }

  private func giveBack(_ address: PCIAddress, to former: String?) throws(BindingError) {
    guard former != "" else { return }
    if let former, machine.exists("/sys/bus/pci/drivers/\(former)") {
      try write("\(address)", "/sys/bus/pci/drivers/\(former)/bind")
      guard bus.driver(of: address) == former else {
        throw .notTaken(address, by: former, driver: bus.driver(of: address))
      }
    } else {
      try write("\(address)", "/sys/bus/pci/drivers_probe")
    }
  }

  /// Back to where a failed ``bind(_:force:owner:)`` began. The error that is reported is the first one.
  private func undo(_ function: DiscoveredFunction) {
    let address = function.address
    try? override(address, with: nil)
    let driver = bus.driver(of: address)
    guard driver != function.driver else { return }
    if let driver { try? write("\(address)", "/sys/bus/pci/drivers/\(driver)/unbind") }
    try? giveBack(address, to: function.driver ?? "")
  }

  private func write(_ text: String, _ path: String) throws(BindingError) {
    let error = machine.write(machine.path(path), text)
    switch error {
    case 0: return
    case EACCES, EPERM, EROFS: throw .permission(path: path)
    default: throw .system(step: "writing to \(path)", errno: error)
    }
  }

  // MARK: The group's node

  private func node(_ group: Int) -> String { "/dev/vfio/\(group)" }

  /// udev or devtmpfs makes the node a moment after the driver has the function.
  private func waitForNode(_ group: Int) throws(BindingError) {
    for _ in 0..<200 {
      if machine.exists(node(group)) { return }
      usleep(10_000)
    }
    throw .noNode(group: group)
  }

  private func give(
    _ group: Int, to owner: (user: UInt32, group: UInt32)
  ) throws(BindingError) {
    let path = machine.path(node(group))
    guard chown(path, owner.user, owner.group) == 0 else {
      throw errno == EPERM
        ? .permission(path: path) : .system(step: "chown \(path)", errno: errno)
    }
  }
}
