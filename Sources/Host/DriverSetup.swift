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
