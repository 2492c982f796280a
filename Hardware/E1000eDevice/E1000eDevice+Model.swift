import EmulatedPCI

extension E1000eDevice: NetworkModel {
  public var complaints: [String] { violations.first.map(\.description) }

  public var complaintCount: Int { violations.count }
  public var namedCounters: [(name: String, value: UInt64)] { counters.named }

  public static var malformations: [String] { Malformation.allCases.map { "\($0)" } }

  /// On the next receive descriptor.
  public func malform(_ name: String) {
    for malformation in Malformation.allCases where "\(malformation)" == name {
      malformReceive(malformation)
    }
  }
}
