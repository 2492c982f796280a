import Driver
import PCI
import PCIDiscovery
import VirtioNet

/// A driver that this program has, without its type.
struct KnownDriver {
  let name: String
  let matches: [PCIMatch]

  init<D: NetworkDriver & ~Copyable>(_ driver: D.Type) {
    name = D.name
    matches = D.matches
  }

  /// All drivers that a function can be given to. The driver host has the same.
  static let all = [KnownDriver(VirtioNet.self)]

  static func driver(for function: DiscoveredFunction) -> KnownDriver? {
    all.first { $0.matches.contains(function.match) }
  }
}
