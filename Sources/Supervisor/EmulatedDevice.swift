import CLinux
import Channel
import Glibc
import Memory
import PCI
import VFIO

/// A device process: `martlet serve` with a socket that has no path, so that nothing of it outlives it.
public final class EmulatedDevice {
  public let access: any DeviceAccess
  private var process: ChildProcess
  private let page: CounterPage

  /// Entries of a device's counter page.
  public static let counterCapacity = 32

  /// Where the wire ends.
  public enum Wire {
    /// An open TAP descriptor; the device process gets a copy.
    case tap(Int32)
    /// As `martlet serve --wire` takes it.
    case named(String)
  }

  public static func start(
    _ model: RunPlan.EmulatedModel, wire: Wire, macAddress: String, queues: Int,
    mode: PollMode, misbehaviour: String? = nil
  ) throws(SupervisorError) -> EmulatedDevice {
    var listener: Int32 = -1
    var client: Int32 = -1
    let result = linux_connected_listener(&listener, &client)
    guard result == 0 else { throw .system("socket", -result) }
    defer { close(listener) }
    var address = [UInt8](repeating: 0, count: 128)
    let length = linux_socket_address(listener, &address, address.count)
    guard length > 0 else { throw .system("socket", -length) }
    let page = try asInput { () throws(MemoryError) -> CounterPage in
      try CounterPage(capacity: counterCapacity)
    }
    var arguments = [
      "serve", model.rawValue, "--listen-fd", "3", "--counters-fd", "4", "--mac", macAddress,
      "--queues", "\(queues)", "--mode", mode.rawValue,
    ]
    if let misbehaviour { arguments += ["--misbehave", misbehaviour] }
    // The driver takes what is best of what there is.
    if model == .virtioNet { arguments += ["--packed", "--in-order"] }
    var descriptors = [-1, -1, 2, listener, page.descriptor]
    switch wire {
    case .tap(let descriptor):
      arguments += ["--tap-fd", "5"]
      descriptors.append(descriptor)
    case .named(let name): arguments += ["--wire", name]
    }
    let process = try ChildProcess(
      name: "device", program: Programs.martlet, arguments: arguments, descriptors: descriptors)
    // The connection waits in the listener until the device process accepts it.
    let socket = client
    do throws(PCIError) {
      return EmulatedDevice(
        access: try VFIOUserAccess(
          socket: socket, name: "emulated \(model.rawValue)",
          place: .address(Array(address.prefix(Int(length))))),
        process: process,
        page: page)
    } catch {
      throw .device("the emulated device does not start: \(error)")
    }
  }

  private init(
    access: any DeviceAccess, process: consuming ChildProcess, page: consuming CounterPage
  ) {
    self.access = access
    self.process = process
    self.page = page
  }

  public var identifier: pid_t { process.identifier }
  /// Becomes readable when the device process has ended.
  public var descriptor: Int32 { process.descriptor }
  public var counters: [(name: String, value: UInt64)] { page.read() }

  /// Adds the page in which it counts.
  func add(to handout: inout CounterHandout) { handout.add(page, "of=device") }

  /// Why the process ended, once ``descriptor`` is readable.
  public func end() -> ProcessEnd { process.end(withinMilliseconds: 0) }

  /// Asks it to end.
  public func stop() -> ProcessEnd {
    process.signal(SIGTERM)
    return process.end(withinMilliseconds: 2000)
  }
}
