/// Which received frames a device lets through (virtio 1.2, 5.1.6.5.1 and 5.1.6.5.2).
struct ReceiveFilter {
  var macAddress: [UInt8]
  var isPromiscuous = false
  var allMulticast = false
  /// nil until the driver sets a table: multicast then comes through as on a simple device.
  var unicast: [[UInt8]] = []
  var multicast: [[UInt8]]?

  init(macAddress: [UInt8]) { self.macAddress = macAddress }

  func accepts(_ destination: [UInt8]) -> Bool {
    if isPromiscuous || destination == [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] { return true }
    if destination.first.map({ $0 & 1 != 0 }) == true {
      return allMulticast || (multicast?.contains(destination) ?? true)
    }
    return destination == macAddress || unicast.contains(destination)
  }
}
