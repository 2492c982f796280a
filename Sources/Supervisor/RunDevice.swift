import CLinux
import Glibc
import PCI
import VFIO
import VhostUser

/// The device of a run: opened or connected to, or started with a wire whose far end is made as well.
struct RunDevice {
  let access: any DeviceAccess
  /// The process that plays an emulated device.
  let process: EmulatedDevice?
  /// The far end of an emulated wire.
  let namespace: NetworkNamespace?
  /// Where a real function's IOMMU faults are seen.
  let faultLog: IOMMUFaultLog?

  /// - Parameters:
  ///   - farEndAddress: of the kernel's end of an emulated wire, with prefix length.
  ///   - report: gets a line where something is not as wished.
  static func open(
    _ plan: RunPlan, farEndAddress: String, report: (String) -> Void
  ) throws(SupervisorError) -> RunDevice {
    switch plan.device {
    case .emulated(let model):
      let namespace = try kernelFarEnd(plan, farEndAddress, report)
      let wire = namespace.map { EmulatedDevice.Wire.tap($0.tap) } ?? StackFarEnd.nearWire
      let process = try EmulatedDevice.start(
        model, wire: wire, macAddress: "52:54:00:6d:61:72", queues: plan.queues, mode: plan.mode,
        misbehaviour: plan.misbehaviour)
      return RunDevice(
        access: process.access, process: process, namespace: namespace, faultLog: nil)
    case .vfioUser(let path): return RunDevice(try connect(path))
    case .vhostUser(let path): return RunDevice(try connect(backEnd: path))
    case .function(let address):
      // The log is read before the device can do anything.
      return RunDevice(try open(address), faultLog: IOMMUFaultLog(address: address))
    }
  }

  private init(
    access: any DeviceAccess, process: EmulatedDevice?, namespace: NetworkNamespace?,
    faultLog: IOMMUFaultLog?
  ) {
    self.access = access
    self.process = process
    self.namespace = namespace
    self.faultLog = faultLog
  }

  private init(_ access: any DeviceAccess, faultLog: IOMMUFaultLog? = nil) {
    self.init(access: access, process: nil, namespace: nil, faultLog: faultLog)
  }

  /// What to watch: when one becomes readable, ``check()`` says why.
  var descriptors: [Int32] {
    [process?.descriptor, namespace?.descriptor, faultLog?.descriptor].compactMap(\.self)
  }

  /// - Returns: news for the log.
  /// - Throws: when a process has ended that the run cannot do without.
  func check() throws(SupervisorError) -> [String] {
    if let process, isReadable(process.descriptor) {
      throw .ended(process: "device", how: process.end())
    }
    if let namespace, isReadable(namespace.descriptor) {
      throw .ended(process: "namespace holder", how: namespace.end())
    }
    return (faultLog?.newFaults() ?? []).map { "the IOMMU stopped the device: \($0)" }
  }

  /// What a device process counts, and how often the IOMMU has stopped a function, as the kernel's log says.
  var counters: [(name: String, value: UInt64)] { process?.counters ?? [] }
  var faults: UInt64 { faultLog?.count ?? 0 }

  /// Ends a device process.
  /// - Returns: what did not end as it should.
  func stop() -> [String] {
    guard let how = process?.stop(), how != .exited(0) else { return [] }
    return ["the device \(how)"]
  }

  /// The kernel as the far end, in a namespace of its own; nil where a stack has to do.
  private static func kernelFarEnd(
    _ plan: RunPlan, _ address: String, _ report: (String) -> Void
  ) throws(SupervisorError) -> NetworkNamespace? {
    if plan.farEnd == .stack { return nil }
    do throws(SupervisorError) {
      return try NetworkNamespace.make(interface: "martlet0", addresses: [address])
    } catch {
      if plan.farEnd == .kernel { throw error }
      report("the kernel cannot be the far end (\(error)): a second stack instance is")
      return nil
    }
  }

  private static func connect(_ path: String) throws(SupervisorError) -> any DeviceAccess {
    do throws(PCIError) {
      return try VFIOUserAccess(path: path)
    } catch {
      throw .device("vfio-user:\(path): \(error)")
    }
  }

  private static func connect(backEnd path: String) throws(SupervisorError) -> any DeviceAccess {
    do throws(PCIError) {
      return try VhostUserAccess(path: path)
    } catch {
      throw .device("\(error)")
    }
  }

  private static func open(_ address: String) throws(SupervisorError) -> any DeviceAccess {
    do throws(DeviceOpenError) {
      return try KernelVFIOAccess(address: address)
    } catch {
      throw .device("\(error)")
    }
  }
}

/// Whether there is something to read, or the other end has gone. Does not wait.
func isReadable(_ descriptor: Int32) -> Bool {
  var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  return poll(&entry, 1, 0) > 0
}
