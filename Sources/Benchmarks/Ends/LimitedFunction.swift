import Driver
import PCI
import Virtio
import VirtioTransports

/// A virtio function that hides some features of its device, so that one back-end can be measured with and without them.
final class LimitedFunction: VirtioFunction {
  private let whole: any VirtioFunction
  private let hidden: VirtioFeatures
  /// What the driver has accepted.
  private(set) var accepted: VirtioFeatures = []

  init(_ whole: any VirtioFunction, hiding hidden: VirtioFeatures) {
    self.whole = whole
    self.hidden = hidden
  }

  func makeTransport() throws(DriverError) -> any VirtioTransport {
    LimitedTransport(try whole.makeTransport(), hiding: hidden) { [unowned self] in accepted = $0 }
  }

  var name: String { whole.name }
  func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    try whole.readConfiguration(at: offset, width: width)
  }
  func writeConfiguration(_ value: UInt32, at offset: Int, width: RegisterWidth) throws(PCIError) {
    try whole.writeConfiguration(value, at: offset, width: width)
  }
  func openRegion(bar: Int) throws(PCIError) -> RegisterRegion { try whole.openRegion(bar: bar) }
  var interrupts: InterruptCapability {
    get throws(PCIError) { try whole.interrupts }
  }
  func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {
    try whole.enableInterrupts(kind, eventfds: eventfds)
  }
  func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {
    try whole.disableInterrupts(kind)
  }
  func unmaskINTx() throws(PCIError) { try whole.unmaskINTx() }
  func reset() throws(PCIError) { try whole.reset() }
}

/// The way to the same device with fewer features.
private final class LimitedTransport: VirtioTransport {
  private let whole: any VirtioTransport
  private let hidden: VirtioFeatures
  private let note: (VirtioFeatures) -> Void

  init(
    _ whole: any VirtioTransport, hiding hidden: VirtioFeatures,
    note: @escaping (VirtioFeatures) -> Void
  ) {
    self.whole = whole
    self.hidden = hidden
    self.note = note
  }

  var deviceFeatures: VirtioFeatures { whole.deviceFeatures.subtracting(hidden) }
  func accept(_ features: VirtioFeatures) {
    note(features)
    whole.accept(features)
  }
  var status: VirtioStatus { whole.status }
  func setStatus(_ status: VirtioStatus) { whole.setStatus(status) }
  func reset() throws(DriverError) { try whole.reset() }
  var queueCount: Int { whole.queueCount }
  func maximumSize(ofQueue queue: Int) -> Int { whole.maximumSize(ofQueue: queue) }
  func enable(
    _ queue: Int, _ ring: VirtqueueAddresses, vector: UInt16
  ) throws(DriverError) -> QueueDoorbell {
    try whole.enable(queue, ring, vector: vector)
  }
  func resetQueue(_ queue: Int) throws(DriverError) { try whole.resetQueue(queue) }
  func setConfigurationVector(_ vector: UInt16) throws(DriverError) {
    try whole.setConfigurationVector(vector)
  }
  func readConfiguration<R>(_ body: (RegisterWindow) -> R) throws(DriverError) -> R {
    try whole.readConfiguration(body)
  }
  var function: any PCIFunction { whole.function }
  func readInterruptStatus() -> UInt8 { whole.readInterruptStatus() }
  var switchesQueuePairs: Bool { whole.switchesQueuePairs }
}
