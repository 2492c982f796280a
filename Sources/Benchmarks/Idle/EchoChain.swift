import Channel
import Glibc
import Supervisor
import Wire

/// The whole product as `martlet run` starts it (device process, confined driver host, lwIP in a process of its own), with
/// an ``EchoSender`` at the far end of the device's wire. Only the driver host's mode is chosen: all else is adaptive.
struct EchoChain: ~Copyable {
  private let device: EmulatedDevice
  private var pipeline: Pipeline
  let sender: EchoSender
  private let thread: String

  /// Ports of this process's own, for each of two chains.
  private static func ports(_ index: Int) -> (near: Int, far: Int) {
    let own = (Int(getpid()) * 2 + index) % 20000
    return (20000 + own, 40000 + own)
  }

  /// - Parameters:
  ///   - mode: of the driver host.
  ///   - isConfined: whether the driver host is confined.
  ///   - core: of its queue thread; nil for any.
  ///   - index: 0, or 1 for a second chain at the same time.
  static func start(
    mode: PollMode, isConfined: Bool = true, core: Int? = nil, index: Int = 0
  ) throws -> EchoChain {
    guard let address = StackAddress("10.0.0.2/24") else {
      throw SupervisorError.input("10.0.0.2/24 is no address")
    }
    let ports = Self.ports(index)
    let (near, far) = ("127.0.0.1:\(ports.near)", "127.0.0.1:\(ports.far)")
    let wire = try DatagramWire.udp(local: far, remote: near)
    let device = try EmulatedDevice.start(
      .virtioNet, wire: .named("udp:\(near),\(far)"), macAddress: "52:54:00:6d:61:72", queues: 1,
      mode: .adaptive)
    var plan = RunPlan(address: address)
    plan.mode = mode
    plan.isConfined = isConfined
    plan.cores = core.map { [$0] } ?? []
    plan.httpPort = 0
    let pipeline = try Pipeline.start(
      plan, on: device.access, instanceArguments: ["--mode", "adaptive"])
    let sender = EchoSender(
      wire, target: [0x52, 0x54, 0, 0x6d, 0x61, 0x72], from: address.neighbour.address,
      to: address.address)
    let thread = try HostThreads(process: pipeline.hostIdentifier).path(of: "queue 0")
    // Addresses are resolved, and all memory has been touched, once some have been answered.
    for _ in 0..<50 where sender.send(rate: 100, milliseconds: 50).answered == 0 {}
    guard sender.flood(outstanding: 32, milliseconds: 100).answered > 0 else {
      throw SupervisorError.input("the stack instance answers no ping")
    }
    return EchoChain(device: device, pipeline: pipeline, sender: sender, thread: thread)
  }

  private init(
    device: EmulatedDevice, pipeline: consuming Pipeline, sender: EchoSender, thread: String
  ) {
    self.device = device
    self.pipeline = pipeline
    self.sender = sender
    self.thread = thread
  }

  /// What the queue thread has had of its core, and for how long it was ready and had none, in nanoseconds.
  func queueTime() throws -> (ran: UInt64, waited: UInt64) {
    try HostThreads.schedule(thread)
  }

  mutating func stop() throws {
    let complaints = pipeline.stop()
    _ = device.stop()
    if !complaints.isEmpty {
      throw SupervisorError.input(complaints.joined(separator: "; "))
    }
  }
}
