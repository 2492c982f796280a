import Driver
import Memory
import PCI
import PCIDiscovery
import VFIO
import VirtioNet

/// Starts a driver on a function that is bound and idle, far enough to know what the two agree on. The device never
/// becomes a bus master, and is left reset.
enum FeatureProbe {
  struct Failure: Error { var text: String }

  static func features(of function: DiscoveredFunction) -> Result<[String], Failure> {
    do {
      return .success(try negotiate(function))
    } catch {
      return .failure(Failure(text: "\(error)"))
    }
  }

  private static func negotiate(_ function: DiscoveredFunction) throws -> [String] {
    let access = try KernelVFIOAccess(address: "\(function.address)")
    let rings = try Arena(byteCount: 1 << 20, pageSize: .ordinary, name: "martlet-probe")
    let probed = try KernelVFIOFunction(descriptor: access.descriptor, name: access.name)
    // The device is told addresses that it may not reach: it is not started.
    var driver = try VirtioNet(
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
