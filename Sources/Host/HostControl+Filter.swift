import Driver
import Steering

/// What nobody wants need not come: the device is told which stations packets must be for, as far as it tells them apart.
/// Whatever comes all the same the host drops.
extension HostControl where D: ~Copyable, Path: ~Copyable {
  /// Tells the device, where something has changed, and the supervisor what the device does.
  /// - Throws: where the device breaks its contract; not where it is gone, which is found out elsewhere.
  mutating func updateFilter() throws(HostError) {
    if let new = instances?.takeStationFilter(), new != filter {
      filter = new
      isFilterSet = false
    }
    guard !isFilterSet, let filter else { return }
    isFilterSet = true
    do throws(DriverError) {
      if filter.takesAll { try driver.setPromiscuous(true) }
      try driver.setFilter(
        unicast: filter.takesAll ? [] : filter.stations.sorted().map(MACAddress.init(station:)),
        multicast: filter.takesAllGroups
          ? nil : filter.groups.sorted().map(MACAddress.init(station:)))
      if !filter.takesAll { try driver.setPromiscuous(false) }
      supervisor.say("filter \(filter)")
    } catch {
      switch error {
      case .unsupported, .commandFailed: supervisor.say("filter none")
      case .deviceGone, .pci: break
      default: throw .driver(error)
      }
    }
  }
}

extension MACAddress {
  /// - Parameter station: 48 bits, the first byte on the wire highest.
  fileprivate init(station: UInt64) {
    let byte = { (index: UInt64) in UInt8(truncatingIfNeeded: station >> (40 - 8 * index)) }
    self.init((byte(0), byte(1), byte(2), byte(3), byte(4), byte(5)))
  }
}
