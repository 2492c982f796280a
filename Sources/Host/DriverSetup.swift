import Confinement
import Driver
import Memory
import PCI
import VhostUser

/// All that a driver is made from, so that it can be made again when its device comes back.
@usableFromInline
struct DriverSetup {
  let function: any PCIFunction
  let rings: DMARange
  @usableFromInline let arena: DMARange
  let arguments: HostArguments
  let interrupts: InterruptPlan
  /// nil where the host is not confined.
  var confined: ConfinedHost?

  /// Drops what only the device's start needed, before the first packet; once.
  func confineLoop() throws(HostError) {
    guard let confined else { return }
    try confining { () throws(ConfinementError) in try Confinement.closeLoop(confined) }
  }

  /// The function, where the process that plays it may go and come back.
  var returning: VhostUserFunction? { function as? VhostUserFunction }

  /// A driver with rings of its own; the one before, if any, is stopped.
  func make<D: NetworkDriver & ~Copyable>(_ driver: D.Type) throws(DriverError) -> D {
    let resources = DriverResources(
      function: function, rings: DMAZone(rings), arena: arena, queuePairs: arguments.queues,
      ringSize: arguments.ringSize, mtu: arguments.mtu, without: arguments.without,
      interrupts: interrupts, requiresPlatformAccess: arguments.requiresPlatformAccess)
    try D.checkOmissions(resources)
    return try D(resources)
  }
}

/// A step of the confinement; what goes wrong is the host's error.
func confining(_ step: () throws(ConfinementError) -> Void) throws(HostError) {
  do throws(ConfinementError) {
    try step()
  } catch {
    throw .confinement(error)
  }
}
