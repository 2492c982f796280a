import Glibc

/// A second device, driver host and stack instance at the far end of an emulated wire, for machines whose kernel cannot
/// be it. It fetches from the first one's server, checks every byte, and ends.
public struct StackFarEnd: ~Copyable {
  private let device: EmulatedDevice
  private var pipeline: Pipeline

  /// The two ends of a wire of datagrams; the ports are this process's own.
  private static let ports = (20000 + Int(getpid()) % 20000, 40000 + Int(getpid()) % 20000)
  static var nearWire: EmulatedDevice.Wire {
    .named("udp:127.0.0.1:\(ports.0),127.0.0.1:\(ports.1)")
  }

  public static func start(_ plan: RunPlan) throws(SupervisorError) -> StackFarEnd {
    let device = try EmulatedDevice.start(
      .virtioNet, wire: .named("udp:127.0.0.1:\(ports.1),127.0.0.1:\(ports.0)"),
      macAddress: "52:54:00:6d:61:73", queues: 1, mode: plan.mode)
    var far = RunPlan(address: plan.address.neighbour)
    far.httpPort = 0
    far.mode = plan.mode
    far.partBytes = plan.partBytes
    far.pageSize = plan.pageSize
    far.isConfined = plan.isConfined
    let pipeline = try Pipeline.start(
      far, on: device.access,
      instanceArguments: [
        "--fetch", "\(plan.address.host):\(plan.httpPort):\(plan.fetchBytes)",
      ])
    return StackFarEnd(device: device, pipeline: pipeline)
  }

  private init(device: EmulatedDevice, pipeline: consuming Pipeline) {
    self.device = device
    self.pipeline = pipeline
  }

  /// Becomes readable when the fetch has ended.
  public var descriptor: Int32 { pipeline.instanceDescriptor }

  /// Ends everything of the far end.
  /// - Returns: how the fetch ended, and what did not end as it should.
  public mutating func stop() -> (fetch: ProcessEnd, complaints: [String]) {
    let fetch = pipeline.instanceEnd()
    var complaints = pipeline.stop()
    let how = device.stop()
    if how != .exited(0) { complaints.append("the far device \(how)") }
    return (fetch, complaints)
  }
}
