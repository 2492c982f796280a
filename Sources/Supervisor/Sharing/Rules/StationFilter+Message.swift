import Channel
import Steering

extension StationFilter {
  /// - Parameter message: of the driver host, or the supervisor's answer, about what the device lets through.
  /// - Returns: nil where the message says nothing of it: the device does not tell stations apart.
  public init?(_ message: ControlMessage) {
    guard let stations = message["stations"], let groups = message["groups"] else { return nil }
    self.init(stations: stations, groups: groups)
  }
}
