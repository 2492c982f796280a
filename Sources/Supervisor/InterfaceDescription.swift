import Channel
import Driver

/// The interface as the driver host describes it. The host is not trusted: every value is checked.
public struct InterfaceDescription: Sendable {
  public var macAddress: MACAddress
  public var mtu: Int
  public var queues: Int
  public var offloads: UInt32
  public var linkIsUp: Bool
  public var features: [String]

  init(_ message: ControlMessage) throws(SupervisorError) {
    guard let mac = message["mac"].flatMap(MACAddress.init),
      let mtu = message["mtu"].flatMap(Int.init),
      (68...65535).contains(mtu), let queues = message["queues"].flatMap(Int.init),
      (1...64).contains(queues), let offloads = message["offloads"].flatMap(UInt32.init)
    else { throw .refused(process: "driver host", reason: "it describes no interface") }
    macAddress = mac
    self.mtu = mtu
    self.queues = queues
    self.offloads = offloads
    linkIsUp = message["link"] == "up"
    features = (message["features"] ?? "").split(separator: ",").map(String.init)
  }
}
