import Supervisor

/// Tells the user what the IOMMU has stopped, as the device does not.
final class FaultReport {
  private let log: IOMMUFaultLog?

  init(_ device: RunPlan.Device) {
    guard case .function(let address) = device else {
      log = nil
      return
    }
    log = IOMMUFaultLog(address: address)
  }

  /// Prints the faults since the last call. Where the kernel's log may not be read there are none.
  func show() {
    for fault in log?.newFaults() ?? [] {
      writeLine("martlet run: the IOMMU stopped: \(fault)", to: 2)
    }
  }
}
