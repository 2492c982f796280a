import PCI

/// How the eventfds of an ``InterruptPlan`` were connected to a function: by MSI-X with a vector for each where it
/// has that many, else by one vector or the line for everything. Control path.
public struct InterruptVectors: Sendable {
  /// nil where nothing is connected.
  public let kind: InterruptKind?
  /// Vectors in use; 0 for the line.
  public let count: Int
  private let isForPairs: Bool

  /// Connects them. With a vector for each, vector 0 is for configuration changes and 1 + n for queue pair n. Where the
  /// host polls its queue pairs, a function with MSI-X still gets vector 0.
  /// - Parameters:
  ///   - function: the function whose vectors they are.
  ///   - plan: the eventfds; one without queues connects that of configuration changes at most.
  ///   - allowsMSI: whether the device can signal by plain MSI (a virtio device cannot: virtio 1.2, 4.1.5.1.2).
  /// - Throws: ``DriverError/pci(_:)``.
  public init(
    _ function: any PCIFunction, _ plan: InterruptPlan, allowsMSI: Bool = true
  ) throws(DriverError) {
    isForPairs = !plan.queues.isEmpty
    guard let first = plan.queues.first else {
      let isConnected = try DriverError.passing { () throws(PCIError) in
        try Self.connectConfiguration(of: function, to: plan.configuration)
      }
      kind = isConnected ? .msix : nil
      count = isConnected ? 1 : 0
      return
    }
    do throws(PCIError) {
      let offered = try function.interrupts
      switch offered.kind {
      case _ where Self.isOneEach(offered, pairs: plan.queues.count):
        kind = .msix
        count = 1 + plan.queues.count
        try function.enableInterrupts(.msix, eventfds: [plan.configuration] + plan.queues)
      case .msix where offered.vectors >= 1:
        kind = .msix
        count = 1
        try function.enableInterrupts(.msix, eventfds: [first])
      case .msi where allowsMSI:
        kind = .msi
        count = 1
        try function.enableInterrupts(.msi, eventfds: [first])
      default:
        kind = .intx
        count = 0
        try function.enableInterrupts(.intx, eventfds: [first])
      }
    } catch {
      throw .pci(error)
    }
  }

  /// - Returns: false where there is no eventfd, or no vector for it.
  private static func connectConfiguration(
    of function: any PCIFunction, to eventfd: Int32
  ) throws(PCIError) -> Bool {
    guard eventfd >= 0, isOneEach(try function.interrupts, pairs: 0) else { return false }
    try function.enableInterrupts(.msix, eventfds: [eventfd])
    return true
  }

  /// Whether a function has a vector for each queue pair and one for configuration changes; where not, the first pair's
  /// eventfd is signalled for all.
  public static func isOneEach(_ offered: InterruptCapability, pairs: Int) -> Bool {
    offered.kind == .msix && offered.vectors > pairs
  }

  /// The vector of a queue pair; that of configuration changes is 0.
  /// - Parameter index: the queue pair, from 0.
  /// - Returns: nil where there is none: the host polls, or the line is in use.
  public func vector(ofPair index: Int) -> Int? {
    !isForPairs || count == 0 ? nil : count == 1 ? 0 : 1 + index
  }
}
