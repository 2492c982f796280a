import Driver
import Memory
import PCI
import PCIDiscovery
import VFIO

/// Starts a driver on a function that is bound and idle, far enough to know what the two agree on. The device never
/// becomes a bus master, and is left reset.
enum FeatureProbe {
  struct Failure: Error { var text: String }

  static func features(of function: DiscoveredFunction) -> Result<[String], Failure> {
    do {
      var probe = Probe(function: function)
      try visitDrivers(&probe)
      return .success(probe.features)
    } catch {
      return .failure(Failure(text: "\(error)"))
    }
  }

  private struct Probe: DriverVisitor {
    let function: DiscoveredFunction
    var features: [String] = []

    mutating func visit<D: NetworkDriver & ~Copyable>(_ driver: D.Type) throws(Failure) {
      guard D.matches.contains(function.match) else { return }
      do {
        features = try FeatureProbe.negotiate(function, driver)
      } catch {
        throw Failure(text: "\(error)")
      }
    }
  }

  private static func negotiate<D: NetworkDriver & ~Copyable>(
    _ function: DiscoveredFunction, _ driver: D.Type
  ) throws -> [String] {
    let access = try KernelVFIOAccess(address: "\(function.address)")
    let rings = try Arena(byteCount: 1 << 20, pageSize: .ordinary, name: "martlet-probe")
    let probed = try KernelVFIOFunction(descriptor: access.descriptor, name: access.name)
    // The device is told addresses that it may not reach: it is not started.
    var driver = try D(
      DriverResources(
        function: probed,
        rings: DMAZone(
          DMARange(address: rings.address, iova: 0x1000_0000, byteCount: rings.byteCount)),
        arena: DMARange(address: rings.address, iova: 0x1000_0000, byteCount: rings.byteCount),
        queuePairs: 2, requiresPlatformAccess: true))
    let features = driver.interface.features
    driver.stop()
    return features
  }
}
