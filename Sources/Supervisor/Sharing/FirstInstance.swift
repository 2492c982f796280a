import Channel
import Glibc
import Steering

/// The stack that a shared run starts itself. It attaches as any other does, but its process is a child of this one.
final class FirstInstance {
  private var process: ChildProcess
  /// Where the kernel stack's interface is, with an emulated device.
  let namespace: NetworkNamespace?

  /// - Parameter socket: gets the supervisor's end of the connection, which is the callee's.
  static func start(
    _ plan: RunPlan, _ interface: InterfaceDescription, connect: (Int32) -> Bool
  ) throws(SupervisorError) -> FirstInstance {
    var tap: Int32 = -1
    var namespace: NetworkNamespace?
    if plan.stack == .kernel {
      if plan.emulatedModel != nil {
        let near = try NetworkNamespace.make(
          interface: "martlet1", addresses: [plan.address.description])
        try near.setAddress(interface.macAddress.description)
        tap = near.tap
        namespace = near
      } else {
        tap = try KernelInterface.open(name: "martlet0")
        try KernelInterface.configure(name: "martlet0", plan, interface)
      }
    }
    let control = try ControlSocket()
    let own = dup(control.descriptor)
    guard own >= 0, fcntl(own, F_SETFD, FD_CLOEXEC) == 0, connect(own) else {
      throw .cannotStart("stack instance", "it cannot be connected")
    }
    // A program that is started with a connection finds its request made.
    let request = AttachRequest(name: plan.stack.name, claims: claims(plan))
    ControlMessage.send(request.text, to: control.peer)
    var arguments =
      plan.stack.arguments + [
        "--address", plan.address.description, "--http", "\(plan.httpPort)", "--mode",
        plan.mode.rawValue,
      ]
    if let gateway = plan.gateway { arguments += ["--gateway", gateway] }
    if tap >= 0 { arguments += ["--tap", "4"] }
    let process = try ChildProcess(
      name: "stack instance", program: plan.stack.program, arguments: arguments,
      descriptors: [-1, 1, 2, control.peer, tap], isolation: geteuid() == 0 ? .user : [])
    return FirstInstance(process: process, namespace: namespace)
  }

  private init(process: consuming ChildProcess, namespace: NetworkNamespace?) {
    self.process = process
    self.namespace = namespace
  }

  /// What nobody else claims goes to the kernel, or is counted by a sink.
  private static func claims(_ plan: RunPlan) -> [Claim] {
    let address = Claim.address(NetworkAddress(ipv4: plan.address.address))
    return switch plan.stack {
    case .kernel: [address, .rest]
    case .sink: [.rest]
    default: [address]
    }
  }

  var descriptor: Int32 { process.descriptor }
  var isOver: Bool { process.isOver }

  /// Waits a moment for its end.
  /// - Returns: what was not as it should be.
  func end() -> [String] {
    let how = process.end(withinMilliseconds: 2000)
    return how == .exited(0) ? [] : ["the stack instance \(how)"]
  }
}
