import EmulatedPCI
import Memory
import PCI
import Wire

/// What a driver is tried on: a function, memory that is mapped for it, and the far end of its wire. A model in this
/// process (``ModelBench``), or real hardware. One thread.
public protocol NetworkBench: AnyObject {
  var function: any PCIFunction { get }
  /// For rings: 4 MiB or more.
  var rings: DMARange { get }
  /// For packets: 16 MiB or more.
  var arena: DMARange { get }
  var requiresPlatformAccess: Bool { get }
  /// Features that the driver is to leave alone (``/Driver/DriverResources/without``).
  var without: [String] { get }

  /// Sends frames from the far end.
  func inject(_ frames: [[UInt8]])
  /// Takes the frames that have reached the far end, those of the suite only (``TestFrame/isOwn(_:)``).
  func takeSent() -> [[UInt8]]
  /// Lets the device work for a moment.
  /// - Returns: whether there was anything to do, as far as that can be told.
  func step() -> Bool
  /// Steps without any work after which nothing more is expected.
  var patience: Int { get }
  /// What device and IOMMU have found wrong since the last call.
  func takeComplaints() -> [String]

  /// Where the device can be made to misbehave; nil where it is real.
  var model: (any NetworkModel)? { get }
  /// From now on every register reads as ones, as those of a device that was pulled out.
  /// - Returns: false where that cannot be had.
  func setGone(_ gone: Bool) -> Bool
  /// From now on registers answer, and the device does no work.
  /// - Returns: false where that cannot be had.
  func setStalled(_ stalled: Bool) -> Bool
}

extension NetworkBench {
  public var without: [String] { [] }
  public func setStalled(_ stalled: Bool) -> Bool { false }
}

/// A model in this process.
public final class ModelBench: NetworkBench {
  public let networkModel: any NetworkModel
  private let inProcess: InProcessFunction
  private let memory: DriverMemory
  private let wire: MemoryWire
  private var complaintsSeen = 0

  /// - Parameter wire: the one that the model was made with.
  public init(_ model: any NetworkModel, wire: MemoryWire) {
    networkModel = model
    self.wire = wire
    inProcess = InProcessFunction(model)
    // A command that a driver waits for is done when it is given.
    inProcess.stepsAfterWrites = true
    // Above 4 GiB: an address that is cut to 32 bits shows itself. An empty space has room for two mappings.
    memory = try! DriverMemory(
      mappedIn: model.iommu, ringsByteCount: 4 << 20, arenaByteCount: 16 << 20,
      arenaIOVA: 0x2_4000_0000)
  }

  public var rings: DMARange { memory.rings }
  public var arena: DMARange { memory.arena }
  public var function: any PCIFunction { inProcess }
  public var requiresPlatformAccess: Bool { true }
  public var patience: Int { 8 }
  public var model: (any NetworkModel)? { networkModel }
  public func inject(_ frames: [[UInt8]]) { wire.arriving += frames }
  public func takeSent() -> [[UInt8]] {
    defer { wire.sent = [] }
    return wire.sent.map(\.frame).filter(TestFrame.isOwn)
  }
  public func step() -> Bool { inProcess.step() }

  public func takeComplaints() -> [String] {
    let faults = networkModel.iommu.faults.map {
      "\($0.isWrite ? "write" : "read") of \($0.byteCount) bytes at IOVA \($0.iova), which is not mapped"
    }
    networkModel.iommu.clearFaults()
    let all = networkModel.complaints
    defer { complaintsSeen = all.count }
    return faults + all.dropFirst(complaintsSeen)
  }

  public func setGone(_ gone: Bool) -> Bool {
    inProcess.isGone = gone
    return true
  }

  public func setStalled(_ stalled: Bool) -> Bool {
    inProcess.isStalled = stalled
    return true
  }
}
