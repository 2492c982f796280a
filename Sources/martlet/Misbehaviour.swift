import EmulatedPCI

/// A device that does wrong now and then: what a driver and those above it make of that is to be seen. By frames, not by time:
/// where nothing but the frame that was lost is sent again, it gets through.
struct Misbehaviour {
  private let name: String
  private let period: UInt64
  /// Frames of both directions at which it is time.
  private var due: UInt64

  private static let failure = "needs-reset"
  private static let counters: Set = ["device_rx_packets", "device_tx_packets"]

  /// - Parameters:
  ///   - name: a way in which the model can complete a frame wrongly, or "needs-reset".
  ///   - period: frames from one time to the next, at least.
  init(_ name: String, every period: UInt64, model: any NetworkModel) throws(ServeFailure) {
    let names = type(of: model).malformations + [Self.failure]
    guard names.contains(name) else {
      throw .usage("--misbehave takes \(names.joined(separator: ", ")), not \(name)")
    }
    self.name = name
    self.period = period
    due = period
  }

  /// Does wrong where it is time to.
  mutating func step(_ model: any NetworkModel) {
    let frames = model.namedCounters.reduce(0) {
      Self.counters.contains($1.name) ? $0 + $1.value : $0
    }
    if frames < due { return }
    due = frames + period
    if name == Self.failure { model.fail() } else { model.malform(name) }
  }
}
