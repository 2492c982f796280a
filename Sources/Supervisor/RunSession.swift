import CLinux
import Glibc
import PCI
import VFIO
import VhostUser

/// Everything that one `martlet run` has started. When it goes away, so does all of it.
public struct RunSession: ~Copyable {
  public private(set) var pipeline: Pipeline
  private let device: EmulatedDevice?
  /// The far end of an emulated wire.
  public let namespace: NetworkNamespace?
  /// Where the kernel stack's interface is, with an emulated device.
  public let stackNamespace: NetworkNamespace?
  /// Where a real function's IOMMU faults are seen.
  private let faultLog: IOMMUFaultLog?
  private let termination: Int32
  private let report: (String) -> Void
  private let eachSecond: (borrowing RunSession) -> Void
  private var nextSecond: UInt64

  public enum Outcome: Equatable { case ready, interrupted, timedOut }

  /// Starts device, driver host and stack instance.
  /// - Parameters:
  ///   - trace: takes a record of the driver host's run.
  ///   - report: gets a line whenever there is news.
  ///   - eachSecond: called about once a second while the session waits.
  public static func start(
    _ plan: RunPlan, trace: TraceFile? = nil, report: @escaping (String) -> Void,
    eachSecond: @escaping (borrowing RunSession) -> Void
  ) throws(SupervisorError) -> RunSession {
    let termination = linux_termination_descriptor()
    guard termination >= 0 else { throw .system("signalfd", -termination) }
    let access: any DeviceAccess
    var device: EmulatedDevice?
    var namespace: NetworkNamespace?
    var functionAddress: String?
    switch plan.device {
    case .emulated(let model):
      namespace = try kernelFarEnd(plan, report)
      let wire = namespace.map { EmulatedDevice.Wire.tap($0.tap) } ?? StackFarEnd.nearWire
      let emulated = try EmulatedDevice.start(
        model, wire: wire, macAddress: "52:54:00:6d:61:72", queues: plan.queues)
      access = emulated.access
      device = emulated
    case .vfioUser(let path): access = try Self.connect(path)
    case .vhostUser(let path): access = try Self.connect(backEnd: path)
    case .function(let address):
      access = try Self.open(address)
      functionAddress = address
    }
    var stackNamespace: NetworkNamespace?
    var tap: Int32 = -1
    if plan.stack == .kernel {
      if plan.emulatedModel != nil {
        let near = try NetworkNamespace.make(
          interface: "martlet1", addresses: [plan.address.description])
        tap = near.tap
        stackNamespace = near
      } else {
        tap = try KernelInterface.open(name: "martlet0")
      }
    }
    // Before the device can do anything.
    let faultLog = functionAddress.flatMap { IOMMUFaultLog(address: $0) }
    let pipeline = try Pipeline.start(plan, on: access, tap: tap, trace: trace)
    if plan.stack == .kernel {
      if let stackNamespace {
        try stackNamespace.setAddress(pipeline.interface.macAddress.description)
      } else {
        try KernelInterface.configure(name: "martlet0", plan, pipeline.interface)
      }
    }
    return RunSession(
      pipeline: pipeline, device: device, namespace: namespace, stackNamespace: stackNamespace,
      faultLog: faultLog, termination: termination, report: report,
      eachSecond: eachSecond)
  }

  private init(
    pipeline: consuming Pipeline, device: EmulatedDevice?,
    namespace: NetworkNamespace?, stackNamespace: NetworkNamespace?,
    faultLog: IOMMUFaultLog?, termination: Int32, report: @escaping (String) -> Void,
    eachSecond: @escaping (borrowing RunSession) -> Void
  ) {
    self.pipeline = pipeline
    self.device = device
    self.namespace = namespace
    self.stackNamespace = stackNamespace
    self.faultLog = faultLog
    self.termination = termination
    self.report = report
    self.eachSecond = eachSecond
    nextSecond = Self.now() + 1000
  }

  /// The kernel as the far end, in a namespace of its own; nil where a stack has to do.
  private static func kernelFarEnd(
    _ plan: RunPlan, _ report: (String) -> Void
  ) throws(SupervisorError) -> NetworkNamespace? {
    if plan.farEnd == .stack { return nil }
    do throws(SupervisorError) {
      return try NetworkNamespace.make(
        interface: "martlet0", addresses: [plan.address.neighbour.description])
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

  public var deviceIdentifier: pid_t? { device?.identifier }

  /// All counters by name: device, host, instance.
  public var counters: [(name: String, value: UInt64)] {
    (device?.counters ?? []) + pipeline.counters + [("iommu_faults", faults)]
  }
  /// Times that the IOMMU has stopped the function, as the kernel's log says.
  private var faults: UInt64 { faultLog?.count ?? 0 }

  /// Waits until a descriptor is readable, a signal asks for the end, or time is up, and watches all processes
  /// meanwhile.
  /// - Parameter descriptor: -1 for none.
  /// - Throws: when one of the processes ends or says that it cannot go on.
  public mutating func wait(
    for descriptor: Int32, milliseconds limit: UInt64
  ) throws(SupervisorError) -> Outcome {
    let end = Self.now() + limit
    while true {
      var entries = pipeline.descriptors.map(Self.entry)
      entries.append(Self.entry(faultLog?.descriptor ?? -1))
      entries.append(Self.entry(namespace?.descriptor ?? -1))
      entries.append(Self.entry(stackNamespace?.descriptor ?? -1))
      entries.append(Self.entry(device?.descriptor ?? -1))
      entries.append(Self.entry(termination))
      entries.append(Self.entry(descriptor))
      let now = Self.now()
      if now >= nextSecond {
        eachSecond(self)
        nextSecond = max(nextSecond + 1000, now + 500)
      }
      if now >= end { return .timedOut }
      let count = poll(&entries, UInt(entries.count), Int32(min(end, nextSecond) - now))
      if count <= 0 { continue }
      let last = entries.count - 1
      if entries[last - 1].revents != 0 { return .interrupted }
      if entries[last - 2].revents != 0 {
        let how = device?.end() ?? .exited(0)
        throw .ended(process: "device", how: how)
      }
      for (index, held) in [(last - 3, stackNamespace), (last - 4, namespace)]
      where entries[index].revents != 0 {
        throw .ended(process: "namespace holder", how: held?.end() ?? .exited(0))
      }
      for line in try pipeline.check() { report(line) }
      for line in faultLog?.newFaults() ?? [] { report("the IOMMU stopped the device: \(line)") }
      if entries[last].revents != 0 { return .ready }
    }
  }

  /// Ends everything in order: instance, host, device.
  /// - Returns: what did not end as it should.
  public mutating func stop() -> [String] {
    var complaints = pipeline.stop()
    if let device {
      let how = device.stop()
      if how != .exited(0) { complaints.append("the device \(how)") }
    }
    return complaints
  }

  private static func entry(_ descriptor: Int32) -> pollfd {
    pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  }

  static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
  }
}
