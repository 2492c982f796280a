import Driver
import PCI
import PCIDiscovery

/// A driver that this program has, without its type. The driver host has the same.
struct KnownDriver {
  let name: String
  let matches: [PCIMatch]
  let optionalFeatures: [String]

  /// All drivers that a function can be given to.
  static let all = {
    var list = List()
    visitDrivers(&list)
    return list.drivers
  }()

  static func driver(for function: DiscoveredFunction) -> KnownDriver? {
    all.first { $0.matches.contains(function.match) }
  }

  private struct List: DriverVisitor {
    var drivers: [KnownDriver] = []
    mutating func visit<D: NetworkDriver & ~Copyable>(_ driver: D.Type) throws(Never) {
      drivers.append(
        KnownDriver(name: D.name, matches: D.matches, optionalFeatures: D.optionalFeatures))
    }
  }
}
