import Channel
import Driver
import Memory

/// What `martlet run` was asked for.
public struct RunPlan: Sendable {
  public enum Device: Sendable, Equatable {
    /// A device process of our own, its wire in a network namespace of our own.
    case emulated(EmulatedModel)
    /// A PCI function that is bound to vfio-pci.
    case function(String)
    /// Any vfio-user server.
    case vfioUser(String)
    /// Any vhost-user back-end.
    case vhostUser(String)
  }

  /// Devices that `martlet serve` has.
  public enum EmulatedModel: String, Sendable, CaseIterable {
    case virtioNet = "virtio-net"
    case e1000e
  }

  /// A stack by its name in martlet-stack, or a program of the user's own by its path.
  public struct Stack: RawRepresentable, Equatable, Sendable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    public static let lwip = Stack(rawValue: "lwip")
    /// The only one that needs anything else than a channel: a TAP interface.
    public static let kernel = Stack(rawValue: "kernel")
    /// Reads each packet's header, counts, answers nothing.
    public static let sink = Stack(rawValue: "sink")
    /// Nothing: with a shared NIC, instances attach by themselves.
    public static let none = Stack(rawValue: "none")

    public var isOwnProgram: Bool { rawValue.contains("/") }
    /// Its name, or that of the program's file.
    public var name: String { rawValue.split(separator: "/").last.map(String.init) ?? rawValue }
    /// What runs it.
    var program: String { isOwnProgram ? rawValue : Programs.stack }
    /// The command line's part that names it.
    var arguments: [String] { isOwnProgram ? [] : ["--stack", rawValue] }
  }

  /// What is at the far end of an emulated wire.
  public enum FarEnd: String, Sendable, CaseIterable {
    /// The kernel where it can be had, else a stack.
    case automatic
    /// This machine's kernel, by a TAP interface in a network namespace.
    case kernel
    /// A second device, driver host and stack instance.
    case stack
  }

  public var farEnd = FarEnd.automatic
  public var device = Device.emulated(.virtioNet)
  /// The model of the emulated device; nil for any other.
  public var emulatedModel: EmulatedModel? {
    if case .emulated(let model) = device { model } else { nil }
  }
  public var stack = Stack.lwip
  public var address: StackAddress
  public var gateway: String?
  /// TCP port of the stack's HTTP server; 0 for none.
  public var httpPort = 80
  public var mode = PollMode.adaptive
  /// The core of each queue pair's thread; none for any.
  public var cores: [Int] = []
  public var queues = 1
  public var ringSize = 256
  /// Where the device leaves the choice; nil for what is usual.
  public var mtu: Int?
  /// Features that the driver is to leave alone.
  public var without: [String] = []
  /// Bytes of each part of the instance's arena: receive and transmit.
  public var partBytes = 32 << 20
  public var pageSize: Arena.PageSize?
  /// The device sees memory at the addresses that driver host and instance see it at.
  public var usesVirtualAddresses = false
  public var isConfined = true
  /// Failures of the driver host within ten seconds after which no other one is started; 1 for the first one.
  public var restartLimit = 8
  /// Whether another driver host stands by, started and confined, while one runs.
  public var keepsStandby = true
  /// Where a run with one instance is asked for its counters or another driver host; nil for nowhere.
  public var controlPath: String?
  /// Whether the driver host is replaced when the IOMMU has stopped the device.
  public var restartsOnIOMMUFault = false
  /// The driver host to start: Martlet's own, or one of an author's package.
  public var hostProgram = Programs.host
  /// A fault to be made on purpose, for tests.
  public var fault: Fault?

  public enum Fault: String, Sendable, CaseIterable {
    /// The driver puts buffers on its rings that lie outside everything that is mapped for the device.
    case dmaOutside = "dma-outside"
  }

  /// How the emulated device does wrong now and then, as `martlet serve --misbehave` takes it; nil for not at all.
  public var misbehaviour: String?

  /// Where a trace of the run goes; nil for none.
  public var tracePath: String?

  /// Bytes to fetch as a check, with the emulated device; 0 for none.
  public var fetchBytes = 100_000_000

  public init(address: StackAddress) { self.address = address }
}
